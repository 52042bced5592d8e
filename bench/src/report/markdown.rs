//! The report as Markdown.

use std::fmt::Write as _;

use super::{Report, cells, gap_text, mark};

pub(super) fn render(report: &Report) -> String {
    let mut text = String::from("# taskring, measured\n\n");
    for warning in report.warnings() {
        line(&mut text, format_args!("**{warning}**\n"));
    }
    for (name, value) in report.facts.rows() {
        line(&mut text, format_args!("- {name}: {}", plain(&value)));
    }
    if report.headlines().next().is_some() {
        let mark = mark(&report.facts);
        line(
            &mut text,
            format_args!("\n## At a glance{mark}\n\n| | alternative | taskring | × better |\n|---|---:|---:|---:|"),
        );
    }
    for (without, with) in report.headlines() {
        let [[before, ..], [after, _, times]] = [without, with].map(|one| cells(one, Some(without)));
        line(&mut text, format_args!("| {} | {before} | {after} | {times} |", with.scenario));
    }
    for about in &report.scenarios {
        let (name, mark) = (&about.name, mark(&report.facts));
        line(&mut text, format_args!("\n## {name}{mark}\n\n{}\n", about.meaning));
        if report.of(name).next().is_some() {
            line(&mut text, format_args!("| | median | spread | × better than the first |\n|---|---:|---:|---:|"));
        }
        for one in report.of(name) {
            let [value, more, times] = cells(one, report.beside(name));
            let alternative = if one.is_alternative { "*alternative:* " } else { "" };
            line(&mut text, format_args!("| {alternative}{} | {value} | {more} | {times} |", plain(&one.variant)));
        }
        let gaps: Vec<String> = report.gaps_of(name).map(gap_text).collect();
        for gap in &gaps {
            line(&mut text, format_args!("\n{}", plain(gap)));
        }
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// What would be markup in Markdown, as it stands.
fn plain(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn every_measurement_has_a_row_and_every_table_says_that_the_device_is_software() {
        let report = sample();
        let text = report.markdown();
        let rows = text.lines().filter(|line| line.contains("variant ")).count();
        assert_eq!(rows, report.measurements.len());
        assert_eq!(text.matches("(software device)\n\n").count(), report.scenarios.len() + 1, "one at a glance");
        assert!(text.contains("2.38×"), "12.5 us beside 5.25 us:\n{text}");
    }
}
