//! Where and how a report was measured.

use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use taskring::{Device, Program, Residency, Runtime, RuntimeOptions};

use crate::{Error, Size};

/// Where and how a report was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// taskring's version.
    pub taskring: String,
    /// The commit of the repository that it ran in, if it ran in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// When it began, as RFC 3339 has it.
    pub date: String,
    /// The command line.
    pub command: String,
    /// How much was measured.
    pub size: Size,
    /// The host: system, architecture and processors.
    pub host: String,
    /// The device.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// The Vulkan version.
    pub vulkan: String,
    /// Lanes in a subgroup.
    pub subgroup_size: u32,
    /// Whether the device is a driver that runs on the CPU.
    pub software: bool,
    /// Whether it ran under the validation layer, which takes time of its own.
    pub validated: bool,
    /// Whether a running slice hears the host, where a variant says nothing else.
    pub live: bool,
    /// Why, in sentences.
    pub reasons: Vec<String>,
    /// The memory in which a running slice hears the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<String>,
    /// The memory in which the host hears a running slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

impl Facts {
    /// Asks device, system and repository.
    pub(crate) fn collect(device: &Device, program: &Program, size: Size, command: String) -> Result<Self, Error> {
        let runtime = Runtime::new(device, program, RuntimeOptions::default())?;
        let residency = runtime.residency();
        let (mailbox, report) = match residency {
            Residency::Live { mailbox, report, .. } => (Some(mailbox.to_string()), Some(report.to_string())),
            Residency::Boundary { .. } => (None, None),
        };
        let facts = device.facts();
        let (major, minor, patch) =
            (facts.api_version >> 22 & 0x7f, facts.api_version >> 12 & 0x3ff, facts.api_version & 0xfff);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            // Both crates are of one workspace and one version.
            taskring: env!("CARGO_PKG_VERSION").into(),
            commit: commit(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command,
            size,
            host: format!("{} {}, {processors} processors", std::env::consts::OS, std::env::consts::ARCH),
            device: facts.name.clone(),
            driver: format!("{} {}", facts.driver_name, facts.driver_info),
            vulkan: format!("{major}.{minor}.{patch}"),
            subgroup_size: device.plan().subgroup_size,
            software: device.is_cpu(),
            validated: device.is_validated(),
            live: residency.is_live(),
            reasons: residency.reasons().to_vec(),
            mailbox,
            report,
        })
    }

    /// All of them for a reader: what each is, and what it is here.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let mode = if self.live { "live" } else { "boundary" };
        let software = if self.software { " (software device)" } else { "" };
        let mut rows = vec![
            ("Device", format!("{}{software}", self.device)),
            ("Driver", format!("{}, Vulkan {}, subgroups of {}", self.driver, self.vulkan, self.subgroup_size)),
            ("Host", self.host.clone()),
            ("Mode", format!("{mode}: {}", self.reasons.join("; "))),
        ];
        if let (Some(mailbox), Some(report)) = (&self.mailbox, &self.report) {
            rows.push(("Memory", format!("mailbox in {mailbox}, reports in {report}").replace('_', " ")));
        }
        let commit = self.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
        rows.push(("taskring", format!("{}{commit}", self.taskring)));
        rows.push(("Date", self.date.clone()));
        if !self.command.is_empty() {
            rows.push(("Command", self.command.clone()));
        }
        rows
    }
}

fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_crates_are_of_one_version() {
        let version = format!("\nversion = \"{}\"\n", env!("CARGO_PKG_VERSION"));
        assert!(include_str!("../../Cargo.toml").contains(&version));
    }
}
