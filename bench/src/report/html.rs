//! The report as one HTML page.

use super::{Report, cells, gap_text, mark, plot};
use crate::{About, Measurement};

const STYLE: &str = include_str!("style.css");

pub(super) fn render(report: &Report) -> String {
    let warnings: String =
        report.warnings().iter().map(|warning| format!("<p class=\"warning\">{}</p>\n", escape(warning))).collect();
    let facts: String = report
        .facts
        .rows()
        .iter()
        .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value)))
        .collect();
    let contents: String =
        report.scenarios.iter().map(|about| format!("<a href=\"#{0}\">{0}</a>\n", escape(&about.name))).collect();
    let glance = glance(report);
    let sections: String = report.scenarios.iter().map(|about| section(report, about)).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>taskring, measured{mark}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>taskring, measured</h1>\n{warnings}\
         <dl>\n{facts}</dl>\n<nav>\n{contents}</nav>\n{glance}{sections}</main>\n</body>\n</html>\n",
        mark = mark(&report.facts),
    )
}

/// One line for each scenario.
fn glance(report: &Report) -> String {
    let row = |(without, with): (&Measurement, &Measurement)| {
        let [[before, ..], [after, _, times]] =
            [without, with].map(|one| cells(one, Some(without)).map(|cell| escape(&cell)));
        let (name, title) = (escape(&with.scenario), escape(&format!("{} / {}", without.variant, with.variant)));
        format!("<tr title=\"{title}\"><th>{name}</th><td>{before}</td><td>{after}</td><td>{times}</td></tr>\n")
    };
    let rows: String = report.headlines().map(row).collect();
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<h2>At a glance{}</h2>\n<div class=\"table glance\"><table>\n\
         <tr><th></th><th>alternative</th><th>taskring</th><th>× better</th></tr>\n{rows}</table></div>\n",
        mark(&report.facts),
    )
}

fn section(report: &Report, about: &About) -> String {
    let (name, mark) = (escape(&about.name), mark(&report.facts));
    let measured: Vec<_> = report.of(&about.name).collect();
    let gaps: String =
        report.gaps_of(&about.name).map(|gap| format!("<p class=\"gap\">{}</p>\n", escape(&gap_text(gap)))).collect();
    let plots = plot::plots(&measured, mark);
    let table = if measured.is_empty() {
        String::new()
    } else {
        let rows: String = measured
            .iter()
            .map(|one| {
                let [value, more, times] = cells(one, report.beside(&about.name)).map(|cell| escape(&cell));
                let kind = if one.is_alternative { "without" } else { "with" };
                let variant = escape(&one.variant);
                format!("<tr class=\"{kind}\"><th>{variant}</th><td>{value}</td><td>{more}</td><td>{times}</td></tr>\n")
            })
            .collect();
        format!(
            "<details>\n<summary>The numbers{mark}</summary>\n<div class=\"table\"><table>\n\
             <tr><th></th><th>median</th><th>spread</th><th>× better than the first</th></tr>\n{rows}</table></div>\n\
             </details>\n"
        )
    };
    let beside: String = about.alternatives.iter().map(|one| format!("<li>{}</li>", escape(one))).collect();
    let beside = if beside.is_empty() {
        beside
    } else {
        format!("<p class=\"beside\">Beside it, in the same run:</p>\n<ul class=\"beside\">{beside}</ul>\n")
    };
    format!(
        "<section id=\"{name}\">\n<h2>{name}</h2>\n<p>{meaning}</p>\n\
         {beside}{plots}{gaps}{table}</section>\n",
        meaning = escape(&about.meaning),
    )
}

/// Text as HTML and XML want it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn the_page_is_well_formed_and_has_every_scenario_and_measurement() {
        let report = sample();
        let page = report.html();
        let body = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
        let parsed = roxmltree::Document::parse(body).unwrap();
        let all = |tag: &'static str| parsed.descendants().filter(move |node| node.has_tag_name(tag));
        for about in &report.scenarios {
            let section = all("section").find(|node| node.attribute("id") == Some(&about.name)).unwrap();
            assert!(section.descendants().any(|node| node.has_tag_name("svg")), "{} has a plot", about.name);
        }
        let rows = all("th").filter(|node| node.text().is_some_and(|text| text.starts_with("variant ")));
        assert_eq!(rows.count(), report.measurements.len());
        for title in all("figcaption").chain(all("summary")) {
            assert!(title.text().unwrap().contains("(software device)"), "{:?}", title.text());
        }
        assert!(!page.contains("NaN") && !page.contains("inf"), "a plot has a place for every number");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = sample().html();
        for foreign in ["<script", "http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_run_without_any_measurement_has_a_page_too() {
        let mut report = sample();
        report.measurements.clear();
        report.incomplete = true;
        let page = report.html();
        roxmltree::Document::parse(page.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
        assert!(page.contains("Incomplete"));
    }
}
