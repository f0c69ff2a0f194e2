// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Shows the hooks that the kernel calls while the middle of a mapping is unmapped, one drawing a
//! line. Exits with 0 only if they are the right ones.

use vmalab::{Device, Hook, page_size};

const PAGES: usize = 6;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let page = page_size();
    let device = Device::open()?;
    device.set_size((PAGES * page) as u64)?;
    let mapping = device.map().length(PAGES * page).shared()?;
    let start = mapping.as_ptr().addr();
    let watch = device.watch().open()?;

    let rest = mapping.unmap_range(2 * page..4 * page)?;
    let events = watch.take()?;
    for event in &events {
        let touched = |nth: usize| event.range.contains(&(start + nth * page));
        let drawing: String = (0..PAGES)
            .map(|nth| if touched(nth) { "###|" } else { "   |" })
            .collect();
        println!("    {:<10}|{drawing}", event.hook.name());
    }
    drop(rest);
    let hooks: Vec<Hook> = events.iter().map(|event| event.hook).collect();
    let expected = [
        Hook::MaySplit,
        Hook::Open,
        Hook::MaySplit,
        Hook::Open,
        Hook::Close,
    ];
    if hooks == expected {
        Ok(())
    } else {
        Err("other hooks were expected".into())
    }
}
