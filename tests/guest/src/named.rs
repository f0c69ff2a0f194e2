// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Objects that several processes open by name, or get as a descriptor; and what is told of them.

use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::{Gid, Uid, setresgid, setresuid},
};
use vmalab::{Device, HookSet, Seals};

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("named::passed_as_a_descriptor", passed_as_a_descriptor),
    Test::device("named::opened_by_name", opened_by_name),
    Test::device("named::a_name_goes_with_its_object", goes_with_its_object),
    Test::device("named::wrong_names", wrong_names),
    Test::device("named::rights", rights),
    Test::device("named::by_either_node", by_either_node),
    Test::device("named::opened_while_others_close", while_others_close),
    Test::device("named::fdinfo", fdinfo),
    Test::device("named::list_in_debugfs", list_in_debugfs),
    Test::device("named::path_in_maps", path_in_maps),
];

fn errno<T: std::fmt::Debug>(result: Result<T, vmalab::Error>) -> i32 {
    result.unwrap_err().errno()
}

/// Over a socket.
fn passed_as_a_descriptor(lab: &Lab) -> Verdict {
    let (here, there) = UnixStream::pair().unwrap();
    let object = lab.open(3);
    letters(map(&object, SHARED, 0, 3), 2, 'A');
    message(&here, Some(object.as_raw_fd()));
    let number = object.as_raw_fd();
    drop(object);
    child(|| {
        let fd = message(&there, None).unwrap();
        // SAFETY: the descriptor is new in this process.
        let passed: Device = unsafe { OwnedFd::from_raw_fd(fd) }.into();
        let addr = map(&passed, SHARED, 0, 3);
        assert_eq!(look(addr, 3), "AB0");
        letters(addr + 2 * PAGE, 1, 'c');
        lab.check_pages(&passed, 3);
        message(&there, Some(passed.as_raw_fd()));
    });
    let back = message(&here, None).unwrap();
    assert_eq!(back, number, "the lowest that is free");
    // SAFETY: as above.
    let back: Device = unsafe { OwnedFd::from_raw_fd(back) }.into();
    assert_eq!(look(map(&back, PRIVATE, 0, 3), 3), "ABc");
    Ok(())
}

/// Sends a descriptor, or receives one.
fn message(socket: &UnixStream, send: Option<i32>) -> Option<i32> {
    let mut byte = [0_u8; 1];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut space = [0_u64; 8];
    // SAFETY: a message with one byte and one descriptor, the space for which is aligned and large
    // enough.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as usize;
        let fd = socket.as_raw_fd();
        if let Some(sent) = send {
            let control = &mut *libc::CMSG_FIRSTHDR(&message);
            control.cmsg_level = libc::SOL_SOCKET;
            control.cmsg_type = libc::SCM_RIGHTS;
            control.cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
            libc::CMSG_DATA(control).cast::<i32>().write_unaligned(sent);
            assert_eq!(libc::sendmsg(fd, &message, 0), 1);
            return None;
        }
        assert_eq!(libc::recvmsg(fd, &mut message, 0), 1);
        let control = libc::CMSG_FIRSTHDR(&message);
        assert!(!control.is_null(), "no descriptor came");
        Some(libc::CMSG_DATA(control).cast::<i32>().read_unaligned())
    }
}

fn opened_by_name(lab: &Lab) -> Verdict {
    let object = lab.open(3);
    let addr = map(&object, SHARED, 0, 3);
    letters(addr, 2, 'A');
    object.set_name("a-name", 0o600).unwrap();
    let before = object.module_stats().unwrap().objects;
    child(|| {
        let other = Device::open_named("a-name").unwrap();
        assert_eq!(other.size(), Ok(3 * PAGE as u64));
        // No other object is left, and it has a position of its own.
        assert_eq!(other.module_stats().unwrap().objects, before);
        let there = map(&other, SHARED, 0, 3);
        letters(there + PAGE, 1, 'x');
        lab.check_areas(&other, 3);
        assert_eq!(nix::unistd::write(&other, b"ABC"), Ok(3));
        other.set_size(2 * PAGE as u64).unwrap();
        other.add_seals(Seals::GROW).unwrap();
        let flags = fcntl(&other, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
    });
    assert_eq!(nix::unistd::read(&object, &mut [0]), Ok(1));
    assert_eq!(look(addr, 3), "?x!");
    assert_eq!(object.seals(), Ok(Seals::GROW));
    lab.check_areas(&object, 1);

    object.remove_name().unwrap();
    object.remove_name().unwrap();
    assert_eq!(errno(Device::open_named("a-name")), libc::ENOENT);
    object.set_name("another", 0o600).unwrap();
    Device::open_named("another").unwrap();
    Ok(())
}

fn goes_with_its_object(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    object.set_name("mortal", 0o600).unwrap();
    let addr = map(&object, SHARED, 0, 2);
    letters(addr, 2, 'A');
    // A mapping is enough.
    drop(object);
    let again = Device::open_named("mortal").unwrap();
    unmap(addr, 2);
    assert_eq!(look(map(&again, SHARED, 0, 2), 2), "AB");
    child(|| drop(Device::open_named("mortal").unwrap()));
    let held = map(&again, PRIVATE, 0, 1);
    drop(again);
    let again = Device::open_named("mortal").unwrap();
    drop(again);
    unmap(held, 1);
    let last = fs::read_to_string("/proc/self/maps").unwrap();
    for line in last.lines().filter(|line| line.ends_with("/dev/vmalab")) {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        unmap(number(from), (number(to) - number(from)) / PAGE);
    }
    assert_eq!(errno(Device::open_named("mortal")), libc::ENOENT);
    // The name is free.
    lab.open(1).set_name("mortal", 0o600).unwrap();
    Ok(())
}

fn wrong_names(lab: &Lab) -> Verdict {
    let (one, other) = (lab.open(1), lab.open(1));
    let longest = "n".repeat(63);
    for wrong in ["", "a b", "a\nb", "\u{e4}", "\0", "x\0y", &"n".repeat(64)] {
        assert_eq!(errno(one.set_name(wrong, 0o600)), libc::EINVAL, "{wrong:?}");
    }
    for mode in [0o700, 0o1600, 0o10600, u32::MAX] {
        assert_eq!(errno(one.set_name("x", mode)), libc::EINVAL, "{mode:o}");
    }
    assert_eq!(errno(Device::open_named(&longest)), libc::ENOENT);
    assert_eq!(errno(Device::open_named("")), libc::ENOENT);
    one.set_name(&longest, 0).unwrap();
    assert_eq!(errno(other.set_name(&longest, 0o600)), libc::EEXIST);
    assert_eq!(errno(one.set_name("more", 0o600)), libc::EBUSY);
    assert_eq!(errno(one.set_name(&longest, 0o600)), libc::EBUSY);
    for flags in [
        libc::O_ACCMODE,
        libc::O_RDWR | libc::O_APPEND,
        libc::O_CREAT,
    ] {
        assert_eq!(errno(one.open_name(&longest, flags)), libc::EINVAL);
    }
    let readable = Device::open_read_only("/dev/vmalab").unwrap();
    assert_eq!(errno(readable.set_name("mine", 0o600)), libc::EBADF);
    // With no descriptor left.
    child(|| {
        let few = libc::rlimit {
            rlim_cur: 32,
            rlim_max: 32,
        };
        // SAFETY: the structure is read.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &few) }, 0);
        while let Ok(more) = one.try_clone() {
            std::mem::forget(more);
        }
        assert_eq!(errno(one.open_name(&longest, libc::O_RDWR)), libc::EMFILE);
    });
    one.open_name(&longest, libc::O_RDWR).unwrap();
    Ok(())
}

/// Runs `body` as another user.
fn as_user(id: u32, body: impl FnOnce()) {
    child(|| {
        let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
        setresgid(group, group, group).unwrap();
        setresuid(user, user, user).unwrap();
        body();
    });
}

fn rights(_lab: &Lab) -> Verdict {
    if !nix::unistd::geteuid().is_root() {
        return Err(Skip::new("only root can be other users"));
    }
    const RO: i32 = libc::O_RDONLY;
    const WO: i32 = libc::O_WRONLY;
    const RW: i32 = libc::O_RDWR;
    let may = |name: &str, access| match Device::open().unwrap().open_name(name, access) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.errno(), libc::EACCES, "{error}");
            false
        }
    };
    let all = |name: &str| [RO, WO, RW].map(|access| may(name, access));

    for (mode, others) in [
        (0o600, [false, false, false]),
        (0o644, [true, false, false]),
        (0o602, [false, true, false]),
        (0o666, [true, true, true]),
    ] {
        let object = Device::open().unwrap();
        object.set_name("roots", mode).unwrap();
        assert_eq!(all("roots"), [true; 3]);
        as_user(1000, || assert_eq!(all("roots"), others, "{mode:o}"));
    }
    // Of another user: the owner is who has made the object, not who names it or asks; root may all.
    as_user(1000, || {
        let object = Device::open().unwrap();
        object.set_name("users", 0o600).unwrap();
        assert_eq!(all("users"), [true; 3]);
    });
    let object = Device::open().unwrap();
    object.set_name("named by root", 0o600).unwrap_err();
    as_user(1000, || {
        object.set_name("passed", 0o600).unwrap();
        assert_eq!(all("passed"), [false; 3]);
    });
    assert_eq!(all("passed"), [true; 3]);

    // Who has the node for reading only gets no more.
    let readable = Device::open_read_only("/dev/vmalab").unwrap();
    for access in [WO, RW] {
        assert_eq!(errno(readable.open_name("passed", access)), libc::EACCES);
    }
    let got = readable.open_name("passed", RO).unwrap();
    assert_eq!(errno(got.set_size(0)), libc::EBADF);
    let flags = OFlag::from_bits_retain(fcntl(&got, FcntlArg::F_GETFL).unwrap());
    assert_eq!(flags & OFlag::O_ACCMODE, OFlag::O_RDONLY);
    let shared = try_map(&got, 0, 1, crate::mem::RW, SHARED, 0);
    assert_eq!(shared, Err(nix::errno::Errno::EACCES));
    Ok(())
}

/// One object behind both generations of the mmap handler.
fn by_either_node(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    object.set_name("both", 0o600).unwrap();
    let prepare = Device::open_at("/dev/vmalab-prepare").unwrap();
    let other = prepare.open_name("both", libc::O_RDWR).unwrap();
    letters(map(&object, SHARED, 0, 2), 1, 'A');
    let there = map(&other, SHARED, 0, 2);
    letters(there + PAGE, 1, 'B');
    assert_eq!(look(there, 2), "AB");
    let stats = object.stats().unwrap();
    assert_eq!(
        (stats.areas, stats.hooks.mapped, stats.hooks.mmap),
        (2, 1, 2)
    );
    Ok(())
}

/// A name that comes and goes: who opens it gets the object, or ENOENT.
fn while_others_close(_lab: &Lab) -> Verdict {
    let done = AtomicBool::new(false);
    let (mut came, mut missed) = (0_u32, 0_u32);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let object = Device::open().unwrap();
                object.set_size(PAGE as u64).unwrap();
                assert_eq!(object.write_at(b"made", 0), Ok(4));
                // The one before may live on with who has it open.
                let _ = object.set_name("fleeting", 0o600);
                thread::yield_now();
            }
        });
        while came < 200 || missed < 20 {
            match Device::open_named("fleeting") {
                Ok(object) => {
                    let mut bytes = [0; 4];
                    assert_eq!(object.read_at(&mut bytes, 0), Ok(4));
                    assert_eq!(&bytes, b"made");
                    came += 1;
                }
                Err(error) => {
                    assert_eq!(error.errno(), libc::ENOENT, "{error}");
                    missed += 1;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// What is told of an object under `key`.
fn told(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
        .to_owned()
}

fn fdinfo(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let object = lab.open(4);
    let addr = map(&object, SHARED, 0, 4);
    letters(addr, 3, 'A');
    unmap(addr + PAGE, 1);
    object.set_hooks(HookSet::PageMkwrite).unwrap();
    object.add_seals(Seals::SHRINK | Seals::GROW).unwrap();
    let read = |object: &Device| {
        fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd())).unwrap()
    };
    let text = read(&object);
    let told = |key| told(&text, key);
    assert_eq!(
        (told("size:"), told("pages:")),
        (format!("{}", 4 * PAGE), "3".into())
    );
    assert_eq!((told("areas:"), told("files:")), ("2".into(), "1".into()));
    assert_eq!(
        (told("seals:"), told("name:")),
        ("0x6".into(), String::new())
    );
    assert_eq!(
        told("hooks:"),
        format!("{:#x}", HookSet::PageMkwrite.bits())
    );
    assert_eq!(told("flags:"), "02100002", "the kernel's own");

    object.set_name("told", 0o600).unwrap();
    let other = Device::open_named("told").unwrap();
    let (one, two) = (read(&object), read(&other));
    for text in [&one, &two] {
        assert_eq!(self::told(text, "name:"), "told");
        assert_eq!(self::told(text, "files:"), "2");
        assert_eq!(self::told(text, "object:"), told("object:"));
    }
    assert_ne!(self::told(&read(&lab.open(1)), "object:"), told("object:"));
    Ok(())
}

fn list_in_debugfs(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let path = "/sys/kernel/debug/vmalab/list";
    let mut file = File::open(path).map_err(|error| Skip(format!("no {path}: {error}")))?;
    let (one, other) = (lab.open(2), lab.open(3));
    letters(map(&other, SHARED, 0, 3), 1, 'A');
    other.set_name("listed", 0o600).unwrap();
    let list = |file: &mut File| std::io::read_to_string(file).unwrap();
    let text = list(&mut file);
    assert_eq!(text.lines().count(), 2, "{text}");
    let line = text
        .lines()
        .find(|line| line.contains("name=listed"))
        .unwrap();
    for part in [
        "size=12288",
        "pages=1",
        "areas=1",
        "files=1",
        "n_mmap=1",
        "n_fault=1",
    ] {
        assert!(
            line.split(' ').any(|field| field == part),
            "{part} in {line}"
        );
    }
    // Many of them, more than one page of text.
    let many: Vec<Device> = (0..500).map(|_| lab.open(1)).collect();
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 502);
    assert!(
        text.lines()
            .all(|line| line.starts_with("object=") && line.contains(" n_open=0"))
    );
    drop((many, one, other));
    assert_eq!(
        fs::read_to_string(path).unwrap().lines().count(),
        1,
        "it is mapped"
    );
    // Nothing that is told is an address of the kernel.
    assert!(!text.contains("ffff"), "{text}");
    Ok(())
}

/// An area is shown with the path of the node, as that of any file.
fn path_in_maps(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    object.set_name("unseen", 0o600).unwrap();
    let prepare = Device::open_at("/dev/vmalab-prepare").unwrap();
    for (device, path) in [(&object, "/dev/vmalab"), (&prepare, "/dev/vmalab-prepare")] {
        let addr = map(device, SHARED, 0, 2);
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps
            .lines()
            .find(|line| line.starts_with(&format!("{addr:x}-")))
            .unwrap();
        assert!(line.ends_with(&format!(" {path}")), "{line}");
    }
    Ok(())
}
