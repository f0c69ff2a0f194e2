// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab watch`: the hook calls of a command, or of all programs, as they happen.
//!
//! It reads the tracepoint `vmalab:vmalab_hook`, in an instance of tracefs of its own, so that other
//! tracing is not touched.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context;
use nix::fcntl::OFlag;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where tracefs is mounted
    #[arg(long, value_name = "DIR", default_value = "/sys/kernel/tracing")]
    tracefs: PathBuf,
    /// The command whose calls are shown, those of its children included; without one, those of all
    /// programs, until this one is interrupted
    #[arg(last = true)]
    command: Vec<std::ffi::OsString>,
}

/// An instance of tracefs, gone when dropped.
struct Instance(PathBuf);

impl Instance {
    fn new(tracefs: &Path) -> anyhow::Result<Self> {
        let event = tracefs.join("events/vmalab/vmalab_hook");
        anyhow::ensure!(
            event.exists(),
            "there is no {}: load vmalab.ko, mount tracefs, and be root",
            event.display()
        );
        let path = tracefs.join(format!("instances/vmalab-watch-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.0.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {value:?} to {path:?}"))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let instance = Instance::new(&args.tracefs)?;
    let pipe = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(instance.0.join("trace_pipe"))?;
    let Some((program, arguments)) = args.command.split_first() else {
        interruptible()?;
        instance.set("events/vmalab/vmalab_hook/enable", "1")?;
        show(pipe, || Ok(INTERRUPTED.load(Ordering::Relaxed)))?;
        return Ok(ExitCode::SUCCESS);
    };
    // Children of a process in the list are added by the kernel: nothing of the command is missed, and
    // this process itself calls nothing.
    instance.set("options/event-fork", "1")?;
    instance.set("set_event_pid", &std::process::id().to_string())?;
    instance.set("events/vmalab/vmalab_hook/enable", "1")?;
    // The command gets the signal, too, and decides.
    interruptible()?;
    let mut child = Command::new(program)
        .args(arguments)
        .spawn()
        .with_context(|| format!("cannot run {}", program.to_string_lossy()))?;
    let mut status = None;
    show(pipe, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    })?;
    let code = status.and_then(|status| status.code()).unwrap_or(2);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(2)))
}

/// Prints lines as they come, until `over` says that there will be no more.
fn show(mut pipe: File, mut over: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    let mut bytes = vec![0; 1 << 16];
    loop {
        // Asked before: what is in the pipe then is all there is.
        let last = over()?;
        loop {
            match pipe.read(&mut bytes) {
                Ok(0) => break,
                Ok(length) => rest.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
            let mut out = std::io::stdout().lock();
            for line in String::from_utf8_lossy(&rest[..end]).lines() {
                writeln!(out, "{}", line.replace(" vmalab_hook: ", " ").trim_start())?;
            }
            rest.drain(..=end);
        }
        if last {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C ends the showing, and the instance is removed.
fn interruptible() -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::Relaxed);
    })?)
}
