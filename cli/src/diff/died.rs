// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! After the process died that compared: [`conclude`] repeats what was under way in it, and tells what is found.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::anyhow;
use vmalab_differ::jobs::TAKEN;
use vmalab_differ::oracle::{Oracle, World};
use vmalab_differ::report::{About, Reason, Report};
use vmalab_differ::runner::{BATCH, End, Plan, Runner, Stats};
use vmalab_differ::supervised::Campaign;
use vmalab_differ::vmac::Isolated;
use vmalab_model::Rules;

use super::{Args, print_stats, share, tell_machines};
use crate::known;

/// So many batches before those that were under way are repeated, if it was none of those: a heap that was written
/// over may be noticed late.
const EARLIER: u64 = 16 * TAKEN;

/// Repeats what was under way, each batch in a process of its own. What is found is told as ever; else what is known.
pub(super) fn conclude(
    args: &Args,
    about: &About,
    rules: Rules,
    mut oracle: Isolated,
    campaign: &Campaign,
    how: &str,
) -> anyhow::Result<ExitCode> {
    eprintln!("vmalab: {how}; repeating what was under way, each batch in a process of its own");
    let mut stats = match campaign.kept()? {
        Some(saved) => saved
            .stats(about)
            .map_err(|why| anyhow!("what was kept is of no use: {why}"))?,
        None => Stats {
            next_batch: about.first_batch,
            ..Stats::default()
        },
    };
    let ops = campaign.ops().load(Ordering::Relaxed);
    stats.unfinished.push(format!(
        "{how}, after {} operations that no figure counts",
        ops.saturating_sub(stats.ops)
    ));
    let worlds = oracle.worlds().to_vec();
    let notes = campaign.under_way().iter();
    let mut under_way: Vec<u64> = notes.filter_map(|note| note.first()).collect();
    under_way.sort_unstable();
    let lowest = under_way.first().copied().unwrap_or(stats.next_batch);
    let end = under_way.last().map_or(lowest, |first| first + TAKEN);
    let earlier = lowest.saturating_sub(EARLIER).max(about.first_batch);
    let before = (earlier..lowest).step_by(TAKEN as usize);
    let (_, total) = share(args);
    // Whoever asks now does not want to wait for this.
    campaign.stop().store(false, Ordering::Relaxed);
    let go_on = || !campaign.stop().load(Ordering::Relaxed);
    let mut all = true;
    let mut runner = Runner::new(&mut oracle, rules)?;
    for first in under_way.iter().copied().chain(before) {
        let planned = (first - about.first_batch) * BATCH;
        let plan = Plan {
            rules,
            seed: about.seed,
            first_batch: first,
            ops: total.saturating_sub(planned).min(TAKEN * BATCH),
        };
        let (_, end) = runner.run(&plan, |_| match go_on() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })?;
        if matches!(end, End::Found(_)) {
            return super::conclude(args, about, &stats, &end, &worlds);
        }
        all = go_on();
        if !all {
            break;
        }
    }
    let why = match all {
        true => format!(
            "each in a process of its own, neither they nor those from {earlier} on do that: something was written \
             where it must not be, and noticed later"
        ),
        false => "what does that was looked for, but not to the end".into(),
    };
    let reason = format!(
        "{how}; the batches from {lowest} to {end} of the seed {} were under way; {why}. A library with sanitizers \
         says where (SANITIZE=1 differ/vmac/build): try with one\n  {} --batch {earlier} --ops {}",
        about.seed,
        about.command,
        (end - earlier) * BATCH
    );
    tell(args, about, &stats, &worlds, reason)?;
    Ok(ExitCode::from(1))
}

/// Tells that it died, where no sequence shows it.
fn tell(
    args: &Args,
    about: &About,
    stats: &Stats,
    worlds: &[World],
    reason: String,
) -> anyhow::Result<()> {
    if !args.json {
        print_stats(stats);
        known::print(&about.oracle, &stats.known);
        println!("result  DIED\n\n{reason}");
    }
    let mut machine = Report::new(about, stats, &End::Stopped, worlds);
    (machine.passed, machine.failed) = (0, 1);
    machine.failures.push(Reason {
        name: format!("{} against {}", about.oracle, about.era),
        reason,
    });
    tell_machines(args, &machine)
}
