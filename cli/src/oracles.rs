// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Which oracle, and which rules of the model: options that several subcommands have.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use nix::sys::personality::{self, Persona};
use vmalab_differ::host::{Host, HostOptions, Tight};
use vmalab_differ::oracle::Oracle;
use vmalab_differ::peer::Peer;
use vmalab_differ::vmac::{self, Build, Isolated, VmaC};
use vmalab_model::{Mistake, Rules};

#[derive(clap::Args)]
pub(crate) struct Choice {
    /// What answers for real
    #[arg(long, value_enum, default_value_t = Which::Host)]
    pub(crate) oracle: Which,
    /// The rules of the model [default: the era of the kernel that answers]
    #[arg(long, value_name = "NAME")]
    era: Option<String>,
    /// With --oracle model: the rules of the model that answers [default: the same]
    #[arg(long, value_name = "NAME")]
    against: Option<String>,
    /// With --oracle vmac: a library that differ/vmac/build made, instead of making one
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// With --oracle host: have mappings of this node of vmalab.ko among the others, tell its driver to refuse
    /// now and then, and look at the areas and hook calls through it; may be given several times
    #[arg(long = "device", value_name = "PATH")]
    devices: Vec<PathBuf>,
    /// With --oracle host: how to come near the limit on the number of areas
    #[arg(long, value_enum, default_value_t = Limit::Fill)]
    limit: Limit,
    /// With --oracle host: run near RLIMIT_DATA, too: when it is first exceeded, the kernel logs a warning
    #[arg(long)]
    data_limit: bool,
    /// With --oracle host: try what is deprecated, too: remap_file_pages, and mremap with an old length of 0,
    /// of which the kernel warns in its log at the first time
    #[arg(long)]
    deprecated: bool,
    /// With --oracle host: addresses are chosen from the bottom up, as for a program that is started with an
    /// unlimited stack
    #[arg(long)]
    legacy_layout: bool,
    /// With --oracle host: read /proc/self/maps as text even where the kernel has PROCMAP_QUERY
    #[arg(long)]
    text: bool,
    /// Break a rule of the model, to see that this is found
    #[arg(long, value_name = "NAME", hide = true)]
    mistake: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// The running kernel
    Host,
    /// mm/vma.c of the kernel tree VMALAB_LINUX_SRC, compiled into a library and run in user space
    Vmac,
    /// The model, by the rules of --against
    Model,
}

#[derive(Clone, Copy, ValueEnum)]
enum Limit {
    /// Not at all
    Never,
    /// By filling the address space
    Fill,
    /// By lowering vm.max_map_count while a batch runs: all processes of the machine see that
    Sysctl,
}

/// An oracle, and the rules to compare it with.
pub(crate) struct Chosen {
    pub(crate) oracle: Box<dyn Oracle>,
    /// The release of the kernel that answers, if one does.
    pub(crate) kernel: String,
    pub(crate) rules: Rules,
}

impl Choice {
    /// The rules that the user named.
    pub(crate) fn era(&self) -> Option<&str> {
        self.era.as_deref()
    }

    /// One oracle of that kind, for a program with one thread, which it cannot harm; `era` names the rules if the
    /// user does not.
    pub(crate) fn one(&self, era: Option<&str>) -> anyhow::Result<Chosen> {
        let (oracle, kernel): (Box<dyn Oracle>, _) = match self.oracle {
            Which::Host => {
                let host = self.hosts(1, &HostOptions::default())?.remove(0);
                let kernel = host.release().to_owned();
                (Box::new(host), kernel)
            }
            Which::Vmac => {
                let vmac = self.vmac(1)?.remove(0);
                let kernel = vmac.kernel().to_owned();
                (Box::new(Isolated::new(vmac)), kernel)
            }
            Which::Model => (Box::new(self.peer(era)?), String::new()),
        };
        let rules = self.rules(&kernel, era)?;
        Ok(Chosen {
            oracle,
            kernel,
            rules,
        })
    }

    /// Whether all processes of the machine see the limit that this one lowers.
    pub(crate) fn lowers_the_limit(&self) -> bool {
        matches!(self.limit, Limit::Sysctl)
    }

    /// The running kernel, looked at as `looks` says, by so many processes at a time.
    pub(crate) fn hosts(&self, count: usize, looks: &HostOptions) -> anyhow::Result<Vec<Host>> {
        if self.library.is_some() {
            bail!("--library goes with --oracle vmac");
        }
        start_anew(self.legacy_layout)?;
        let options = HostOptions {
            devices: self.devices.clone(),
            tight: match self.limit {
                Limit::Never => Tight::Never,
                Limit::Fill => Tight::Fill,
                Limit::Sysctl => Tight::Sysctl,
            },
            data_limit: self.data_limit,
            deprecated: self.deprecated,
            text: self.text,
            ..*looks
        };
        let host = |_| Host::new(options.clone()).map_err(Into::into);
        (0..count).map(host).collect()
    }

    /// So many copies of the library, which is made first if none was named.
    pub(crate) fn vmac(&self, copies: usize) -> anyhow::Result<Vec<VmaC>> {
        if !self.devices.is_empty() {
            bail!("--device goes with --oracle host: vmac has devices of its own");
        }
        let load = |library: &Path| -> anyhow::Result<Vec<VmaC>> {
            let load = |_| VmaC::new(library).map_err(Into::into);
            (0..copies).map(load).collect()
        };
        if let Some(library) = &self.library {
            return load(library);
        }
        let build = Build::from_environment()?;
        let built = std::env::temp_dir().join(format!("libvmac-{}.so", std::process::id()));
        build.run(&built)?;
        let oracles = load(&built);
        // Each oracle has a copy of its own.
        fs::remove_file(&built).with_context(|| format!("cannot remove {}", built.display()))?;
        oracles
    }

    /// A model that answers.
    pub(crate) fn peer(&self, era: Option<&str>) -> anyhow::Result<Peer> {
        if !self.devices.is_empty() || self.library.is_some() {
            bail!("--device and --library go with other oracles than the model");
        }
        let name = self.against.as_deref().or(self.era.as_deref()).or(era);
        let rules = match name {
            Some(name) => *by_name(name)?,
            None => Rules::V7_2,
        };
        Ok(Peer::with_worlds(rules, vmac::worlds()))
    }

    /// The rules to compare with.
    pub(crate) fn rules(&self, kernel: &str, era: Option<&str>) -> anyhow::Result<Rules> {
        let rules = match (self.era.as_deref().or(era), self.oracle) {
            (Some(name), _) => by_name(name)?,
            (None, Which::Model) => &Rules::V7_2,
            (None, _) => Rules::for_kernel(kernel).ok_or_else(|| {
                anyhow!(
                    "this kernel, {kernel}, is older than all eras of the model ({}); choose one with \
                     --era to compare all the same",
                    names()
                )
            })?,
        };
        let Some(name) = &self.mistake else {
            return Ok(*rules);
        };
        let known = Mistake::ALL
            .iter()
            .find(|mistake| format!("{mistake:?}") == *name);
        match known {
            Some(&mistake) => Ok(rules.with_mistake(mistake)),
            None => bail!("there is no mistake {name}; there are: {:?}", Mistake::ALL),
        }
    }

    /// What to type to have the same oracle and rules again.
    pub(crate) fn words(&self) -> String {
        let mut words = match self.oracle {
            Which::Host => String::new(),
            Which::Vmac => " --oracle vmac".into(),
            Which::Model => " --oracle model".into(),
        };
        if let Some(path) = &self.library {
            words += &format!(" --library {}", path.display());
        }
        for path in &self.devices {
            words += &format!(" --device {}", path.display());
        }
        let named = [
            ("era", &self.era),
            ("against", &self.against),
            ("mistake", &self.mistake),
        ];
        for (option, name) in named {
            if let Some(name) = name {
                words += &format!(" --{option} {name}");
            }
        }
        match self.limit {
            Limit::Never => words += " --limit never",
            Limit::Fill => {}
            Limit::Sysctl => words += " --limit sysctl",
        }
        let given = [
            ("data-limit", self.data_limit),
            ("deprecated", self.deprecated),
            ("legacy-layout", self.legacy_layout),
            ("text", self.text),
        ];
        for (option, _) in given.iter().filter(|(_, given)| *given) {
            words += &format!(" --{option}");
        }
        words
    }
}

fn names() -> String {
    let names: Vec<_> = Rules::all().iter().map(|rules| rules.name).collect();
    names.join(", ")
}

fn by_name(name: &str) -> anyhow::Result<&'static Rules> {
    Rules::by_name(name).ok_or_else(|| anyhow!("there is no era {name}; there are: {}", names()))
}

/// Starts this program anew without address randomisation, so that the addresses of a finding are the
/// same next time: where that is not allowed, only the choices repeat. And by the legacy layout, if so wanted,
/// which it has from its start.
fn start_anew(legacy: bool) -> anyhow::Result<()> {
    let persona = personality::get()?;
    let mut wanted = persona | Persona::ADDR_NO_RANDOMIZE;
    wanted.set(
        Persona::ADDR_COMPAT_LAYOUT,
        legacy || persona.contains(Persona::ADDR_COMPAT_LAYOUT),
    );
    if persona == wanted {
        return Ok(());
    }
    if let Err(errno) = personality::set(wanted) {
        if legacy {
            return Err(errno).context("cannot have the legacy layout");
        }
        return Ok(());
    }
    let program =
        std::env::current_exe().context("cannot find this program (is /proc mounted?)")?;
    let error = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
