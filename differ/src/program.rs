// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`program`]: a case as a program of C that shows the same on a plain kernel, without us.
//!
//! It does the operations, prints what was expected of the differing field and what came, and its exit
//! status is 1 if that is not the same.

use std::fmt::Write as _;

use vmalab_model::file::{Kind as FileKind, WriteSeal};
use vmalab_model::{Area, Errno, NewName, Object, Op, Outcome, PAGE_SIZE, VmFlags};

use crate::call::{Anchor, Call, Kind, NO_FILE};
use crate::host::smaps;
use crate::oracle::{NamedFile, World};
use crate::runner::{Case, Differs, What};
use crate::show;

/// The program, in C. `title` says what it is about.
///
/// # Errors
/// Why no plain kernel can show it.
pub fn program(case: &Case, worlds: &[World], title: &str) -> Result<String, String> {
    let What::Differs(differs) = &case.what else {
        return Err("what broke is inside the oracle".into());
    };
    let mut program = Program {
        world: &worlds[case.world],
        uses_heap: false,
        uses_chosen: false,
        uses_touch: false,
        uses_fork: false,
    };
    let limits = program.limits(&worlds[0])?;
    let check = program.check(differs)?;
    let locks_all = |op: &Op| matches!(op, Op::Mlockall { .. });
    if differs.difference.field == "locked_vm" && case.ops.iter().any(locks_all) {
        return Err(
            "it counts all that is locked, and a program of its own has other areas".into(),
        );
    }
    let mut calls = String::new();
    for op in &case.ops {
        let _ = writeln!(calls, "\tgot = {};", program.call(op)?);
    }
    let files = program.files(&case.ops)?;
    Ok(program.text(title, &limits, &files, &calls, &check))
}

/// What is compared, and how.
struct Check {
    /// Functions before `main`.
    functions: String,
    /// Before the first operation.
    before: String,
    /// After the last: prints, and returns.
    after: String,
}

struct Program<'a> {
    world: &'a World,
    uses_heap: bool,
    uses_chosen: bool,
    uses_touch: bool,
    uses_fork: bool,
}

const PROC: &str = r"
static char text[1 << 20];

/* What a file of /proc says. No memory is allocated: the areas are what is looked at. */
static char *proc(const char *path)
{
	ssize_t more, n = 0;
	int fd = open(path, O_RDONLY);

	while ((more = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += more;
	close(fd);
	text[n] = 0;
	return text;
}
";

const COUNTER: &str = r"
/* A counter, in pages. */
static long counter(const char *name)
{
	char *line = strstr(proc(%PATH%), name);

	return line ? atol(line + strlen(name)) / 4 : 0;
}
";

const MAP_COUNT: &str = r#"
/* How many areas there are. */
static long counter(const char *name)
{
	long lines = 0;

	for (char *line = proc(name); (line = strchr(line, '\n')); line++)
		lines++;
	return lines;
}
"#;

const AREAS: &str = r#"
static char seen[1 << 16];

/* The areas of a window, relative to it: as /proc/self/maps has them. */
static void areas(const char *name, unsigned long from, unsigned long to)
{
	unsigned long start, end, offset;
	char perms[5];

	for (char *line = proc("/proc/self/maps"); *line; line = strchr(line, '\n') + 1)
		if (sscanf(line, "%lx-%lx %4s %lx", &start, &end, perms, &offset) == 4 && start < to && end > from)
			sprintf(seen + strlen(seen), "%s+%#lx-%#lx %s %#lx\n", name, start - from, end - from,
				perms, offset);
}
"#;

const HAS_FLAG: &str = r#"
/* Whether the area that begins there has a flag, as VmFlags in /proc/self/smaps tells it. */
static int has_flag(unsigned long begin, const char *flag)
{
	char head[32], *line;

	sprintf(head, "%lx-", begin);
	for (line = proc("/proc/self/smaps"); strncmp(line, head, strlen(head)); line++)
		if (!(line = strchr(line, '\n')) || !line[1])
			return -1;
	line = strstr(line, "VmFlags:");
	*strchr(line, '\n') = 0;
	return strstr(line, flag) != NULL;
}
"#;

const CHOSEN: &str = r#"
/* From where down the kernel chooses addresses, once the smaller gaps above are full. */
static unsigned long chosen(void)
{
	unsigned long start, end, before = 0, top = 0;
	int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;

	for (char *line = proc("/proc/self/maps"); *line; line = strchr(line, '\n') + 1) {
		sscanf(line, "%lx-%lx", &start, &end);
		if (start < 1ul << 47 && start - before > 1ul << 42)
			top = start;
		before = end;
	}
	while ((start = (unsigned long)mmap(NULL, 4096, PROT_NONE, flags, -1, 0)) > top)
		;
	return start;
}
"#;

const FORK: &str = r"
/* Goes on in a child; its exit status is ours. */
static void in_child(void)
{
	int status;
	pid_t child = fork();

	if (child == 0)
		return;
	waitpid(child, &status, 0);
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
}
";

impl Program<'_> {
    fn text(&self, title: &str, limits: &str, files: &str, calls: &str, check: &Check) -> String {
        let mut text = String::new();
        for line in title.lines() {
            let _ = writeln!(text, "// {}", line.replace('\\', "/"));
        }
        text += "// gcc -Wall -o show show.c && ./show\n#define _GNU_SOURCE\n";
        for header in [
            "errno.h",
            "fcntl.h",
            "stdio.h",
            "stdlib.h",
            "string.h",
            "sys/mman.h",
            "sys/prctl.h",
            "sys/resource.h",
            "sys/syscall.h",
            "sys/wait.h",
            "unistd.h",
        ] {
            let _ = writeln!(text, "#include <{header}>");
        }
        let _ = writeln!(text, "\n#define ARENA {:#x}ul", self.world.arena.start);
        if self.uses_chosen || !limits.is_empty() || !check.functions.is_empty() {
            text += PROC;
        }
        if !limits.is_empty() && !check.functions.contains("counter(") {
            text += &COUNTER.replace("%PATH%", "\"/proc/self/status\"");
        }
        text += &check.functions;
        if self.uses_chosen {
            text += CHOSEN;
        }
        if self.uses_fork {
            text += FORK;
        }
        text += "\n/* The value of a system call, or its negative error. */\nstatic long call(long value)\n{\n\t\
                 return value == -1 ? -errno : value;\n}\n\nint main(void)\n{\n\tlong got;\n";
        if self.uses_touch {
            text += "\tint byte = memfd_create(\"byte\", 0);\n";
        }
        text += files;
        if self.uses_heap {
            text += "\tunsigned long heap = (syscall(SYS_brk, 0) + 4095) & ~4095ul;\n";
        }
        if self.uses_chosen {
            text += "\tunsigned long top = chosen();\n";
        }
        text += &check.before;
        text += limits;
        if self.uses_touch {
            text += "\tif (ftruncate(byte, 4096))\n\t\treturn 2;\n";
        }
        let _ = write!(text, "\n{calls}\n{}}}\n", check.after);
        text
    }

    /// An address by what it is near to.
    fn address(&mut self, addr: u64) -> String {
        match Anchor::near(addr, self.world) {
            None => format!("{addr:#x}ul"),
            Some((anchor, distance)) => {
                let name = match anchor {
                    Anchor::Arena => "ARENA",
                    Anchor::Heap => {
                        self.uses_heap = true;
                        "heap"
                    }
                    Anchor::Chosen => {
                        self.uses_chosen = true;
                        "top"
                    }
                };
                let sign = if distance < 0 { '-' } else { '+' };
                match distance {
                    0 => name.into(),
                    _ => format!("{name} {sign} {:#x}", distance.unsigned_abs()),
                }
            }
        }
    }

    fn word(&mut self, kind: Kind, value: u64) -> String {
        match kind {
            Kind::Addr => self.address(value),
            Kind::File if value != NO_FILE => self.world.files[value as usize].name.clone(),
            Kind::File => "-1".into(),
            Kind::Signed => format!("{}l", value as i64),
            _ if kind.is_flags() || kind == Kind::Advice => {
                let words = kind.word(value, &[], None);
                match words.split('|').all(|word| IN_HEADERS.contains(&word)) {
                    true => words.replace('|', " | "),
                    false => format!("{value:#x}"),
                }
            }
            _ => format!("{value:#x}ul"),
        }
    }

    /// The statement that does an operation.
    fn call(&mut self, op: &Op) -> Result<String, String> {
        let call = Call::from(op);
        Ok(match *op {
            Op::Fork => {
                self.uses_fork = true;
                "(in_child(), 0)".into()
            }
            Op::Touch { addr, write } => {
                self.uses_touch = true;
                let number = if write { "SYS_pread64" } else { "SYS_pwrite64" };
                let addr = self.address(addr);
                // To read from a file is to write to memory.
                format!("call(syscall({number}, byte, {addr}, 1ul, 0ul)) < 0 ? -EFAULT : 0")
            }
            Op::SetMdwe { bits } => {
                format!(
                    "call(syscall(SYS_prctl, 65 /* PR_SET_MDWE */, {:#x}ul, 0ul, 0ul, 0ul))",
                    bits.0
                )
            }
            Op::Mbind {
                addr,
                len,
                mode,
                nodes,
                flags,
            } => {
                let addr = self.address(addr);
                format!(
                    "call(syscall(SYS_mbind, {addr}, {len:#x}ul, {mode}ul, \
                     (unsigned long[]){{ {nodes:#x} }}, 64ul, {flags}ul))"
                )
            }
            Op::SetName { addr, len, name } => {
                let addr = self.address(addr);
                let name = match name {
                    NewName::None => "NULL".into(),
                    NewName::Some(name) => format!("\"{}\"", show::name(name)),
                    NewName::Invalid => "\"[]\"".into(),
                };
                format!(
                    "call(syscall(SYS_prctl, 0x53564d41 /* PR_SET_VMA */, 0ul, {addr}, {len:#x}ul, {name}))"
                )
            }
            Op::Shmat { .. } | Op::Shmdt { .. } => {
                return Err("it takes a segment, which is made elsewhere".into());
            }
            Op::Steer { .. } => {
                return Err("it takes a driver that can be told to refuse".into());
            }
            Op::UffdRegister { .. } | Op::UffdUnregister { .. } => {
                return Err("it takes a userfaultfd, which needs a second thread".into());
            }
            Op::FailAllocation { .. } => {
                return Err(
                    "it takes an allocation that fails, which no plain kernel offers".into(),
                );
            }
            // glibc of some years ago does not know the number.
            Op::Mseal { .. } => self.numbered("462 /* mseal */", &call),
            _ => self.numbered(&format!("SYS_{}", call.signature.name), &call),
        })
    }

    fn numbered(&mut self, number: &str, call: &Call) -> String {
        let mut words = vec![number.to_owned()];
        for (_, kind, value) in call.args() {
            let word = self.word(kind, value);
            words.push(word);
        }
        format!("call(syscall({}))", words.join(", "))
    }

    /// Makes the files that are used.
    fn files(&mut self, ops: &[Op]) -> Result<String, String> {
        let mut used = Vec::new();
        for op in ops {
            for (_, kind, value) in Call::from(op).args() {
                if kind == Kind::File && value != NO_FILE && !used.contains(&value) {
                    used.push(value);
                }
            }
        }
        let mut text = String::new();
        for place in used {
            let NamedFile { name, file } = &self.world.files[place as usize];
            if file.kind == FileKind::Unmappable {
                let _ = writeln!(text, "\tint {name} = open(\"/\", O_RDONLY | O_DIRECTORY);");
                continue;
            }
            if file.kind != FileKind::Shmem {
                return Err(format!(
                    "it takes the file {name}, which no plain kernel has"
                ));
            }
            let size = file.pages * PAGE_SIZE;
            let seal = match file.write_seal {
                WriteSeal::None => None,
                WriteSeal::Write => Some("F_SEAL_WRITE"),
                WriteSeal::FutureWrite => Some("F_SEAL_FUTURE_WRITE"),
            };
            if let Some(seal) = seal {
                let _ = writeln!(
                    text,
                    "\tint {name} = memfd_create(\"{name}\", MFD_ALLOW_SEALING);\n\
                     \tif ({name} < 0 || ftruncate({name}, {size}) || fcntl({name}, F_ADD_SEALS, {seal}))\n\t\treturn 2;"
                );
            } else if file.read && file.write {
                let _ = writeln!(
                    text,
                    "\tint {name} = memfd_create(\"{name}\", 0);\n\tif ({name} < 0 || ftruncate({name}, {size}))\n\t\treturn 2;"
                );
            } else {
                let how = if file.read { "O_RDONLY" } else { "O_WRONLY" };
                let _ = writeln!(
                    text,
                    "\tint {name} = memfd_create(\"{name}\", 0);\n\tchar path_of_{name}[32];\n\tif ({name} < 0 || ftruncate({name}, {size}))\n\t\treturn 2;\n\
                     \tsprintf(path_of_{name}, \"/proc/self/fd/%d\", {name});\n\t{name} = open(path_of_{name}, {how});"
                );
            }
        }
        Ok(text)
    }

    /// Makes the limits of the world, as far as a program can.
    fn limits(&self, usual: &World) -> Result<String, String> {
        let (ours, plain) = (&self.world.limits, &usual.limits);
        let others = [
            ours.max_map_count != plain.max_map_count,
            ours.memlock != plain.memlock,
            ours.stack != plain.stack,
            ours.overcommit != plain.overcommit,
            self.world
                .areas
                .iter()
                .any(|area| area.object != Object::Other),
        ];
        if others.contains(&true) && self.world.name != usual.name {
            return Err(format!("it needs the world \"{}\"", self.world.name));
        }
        let mut text = String::new();
        for (name, counter, ours, plain, now) in [
            (
                "RLIMIT_AS",
                "VmSize:",
                ours.address_space,
                plain.address_space,
                self.world.counters.total_vm,
            ),
            (
                "RLIMIT_DATA",
                "VmData:",
                ours.data,
                plain.data,
                self.world.counters.data_vm,
            ),
        ] {
            if ours != plain {
                let pages = ours / PAGE_SIZE - now;
                let _ = writeln!(
                    text,
                    "\tstruct rlimit room_{now} = {{ (counter(\"{counter}\") + {pages}) * 4096, RLIM_INFINITY }};\n\
                     \tsetrlimit({name}, &room_{now});"
                );
            }
        }
        Ok(text)
    }

    fn check(&mut self, differs: &Differs) -> Result<Check, String> {
        let aspect = differs.difference.aspect();
        let (predicted, observed) = (&differs.predicted, &differs.observed.outcome);
        match &*aspect {
            "result" => Ok(self.check_result(predicted.result)),
            "area at flags" => {
                let mask = VmFlags::READ | VmFlags::WRITE | VmFlags::EXEC | VmFlags::MAYSHARE;
                let pairs = || predicted.layout.iter().zip(&observed.layout);
                let differ = |p: &Area, o: &Area| p.flags.0 ^ o.flags.0;
                if pairs().any(|(p, o)| differ(p, o) & mask.0 != 0) {
                    return Ok(self.check_areas(predicted));
                }
                let all = smaps::shown().0;
                let pair = pairs().find(|(p, o)| differ(p, o) & all != 0);
                let (p, o) = pair.ok_or("no file of /proc shows the flag that differs")?;
                let changed = differ(p, o);
                let shown = smaps::SHOWN.iter().find(|(_, flag)| changed & flag.0 != 0);
                let (letters, flag) =
                    shown.ok_or("no file of /proc shows the flag that differs")?;
                let begin = self.address(p.start);
                let expected = u8::from(p.flags.contains(*flag));
                Ok(Check {
                    functions: HAS_FLAG.into(),
                    before: String::new(),
                    after: format!(
                        "\t(void)got;\n\tint flag = has_flag({begin}, \" {letters}\");\n\
                         \tprintf(\"flag {letters} of the area at %#lx: expected {expected}, observed %d\\n\", \
                         (unsigned long)({begin}), flag);\n\treturn flag != {expected};\n"
                    ),
                })
            }
            "area at offset" if hidden_offset(predicted, observed) => {
                Err("no file of /proc shows the offset of anonymous memory".into())
            }
            _ if aspect.starts_with("area") => Ok(self.check_areas(predicted)),
            "map_count" => {
                let expected =
                    predicted.counters.map_count as i64 - self.world.counters.map_count as i64;
                Ok(check_counter(
                    "/proc/self/maps",
                    "areas more than before",
                    MAP_COUNT,
                    expected,
                ))
            }
            "total_vm" | "locked_vm" | "data_vm" | "stack_vm" => {
                let of = |counters: &vmalab_model::Counters| match &*aspect {
                    "total_vm" => counters.total_vm,
                    "locked_vm" => counters.locked_vm,
                    "data_vm" => counters.data_vm,
                    _ => counters.stack_vm,
                };
                let name = match &*aspect {
                    "total_vm" => "VmSize:",
                    "locked_vm" => "VmLck:",
                    "data_vm" => "VmData:",
                    _ => "VmStk:",
                };
                let expected = of(&predicted.counters) as i64 - of(&self.world.counters) as i64;
                let function = COUNTER.replace("%PATH%", "\"/proc/self/status\"");
                Ok(check_counter(
                    name,
                    "pages more than before",
                    &function,
                    expected,
                ))
            }
            _ => Err(format!("no program sees this: {aspect}")),
        }
    }

    fn check_result(&mut self, result: Result<u64, Errno>) -> Check {
        let (expected, shown) = match result {
            Ok(value) => (self.address(value), format!("{value:#x}")),
            Err(errno) => (format!("-{errno}"), errno.to_string()),
        };
        let expected = match result {
            Ok(0) => "0".into(),
            _ => expected,
        };
        Check {
            functions: String::new(),
            before: String::new(),
            after: format!(
                "\tprintf(\"result: expected {shown}, observed %#lx (%s)\\n\", got, got < 0 ? strerror(-got) : \"no error\");\n\
                 \treturn got != (long)({expected});\n"
            ),
        }
    }

    fn check_areas(&mut self, predicted: &Outcome) -> Check {
        let mut expected = String::new();
        let mut calls = String::new();
        let shows = |window: &std::ops::Range<u64>, area: &&Area| {
            area.start < window.end && area.end > window.start
        };
        let windows = [
            ("arena", Some(self.world.arena.clone())),
            (
                "heap",
                self.world.heap.as_ref().map(|heap| heap.window.clone()),
            ),
            ("chosen", self.world.chosen.clone()),
        ];
        for (name, window) in windows {
            let Some(window) = window else { continue };
            let areas: Vec<_> = predicted
                .layout
                .iter()
                .filter(|area| shows(&window, area))
                .collect();
            if areas.is_empty() && name != "arena" {
                continue;
            }
            for area in areas {
                let _ = writeln!(expected, "\t\t\"{}\\n\"", line(name, window.start, area));
            }
            let from = match name {
                "arena" => "ARENA".into(),
                "heap" => {
                    self.uses_heap = true;
                    "heap".into()
                }
                _ => {
                    self.uses_chosen = true;
                    format!("top - {:#x}", window.end - window.start)
                }
            };
            let size = window.end - window.start;
            let _ = writeln!(calls, "\tareas(\"{name}\", {from}, {from} + {size:#x});");
        }
        if expected.is_empty() {
            expected = "\t\t\"\"\n".into();
        }
        let expected = expected.trim_end();
        Check {
            functions: AREAS.into(),
            before: String::new(),
            after: format!(
                "\t(void)got;\n{calls}\tconst char *expected =\n{expected};\n\
                 \tprintf(\"expected:\\n%sobserved:\\n%s\", expected, seen);\n\treturn strcmp(seen, expected) != 0;\n"
            ),
        }
    }
}

fn check_counter(name: &str, unit: &str, function: &str, expected: i64) -> Check {
    Check {
        functions: function.into(),
        before: format!("\tlong before = counter(\"{name}\");\n"),
        after: format!(
            "\t(void)got;\n\tlong more = counter(\"{name}\") - before;\n\
             \tprintf(\"{name} expected {expected} {unit}, observed %ld\\n\", more);\n\treturn more != {expected};\n"
        ),
    }
}

/// An area as the program prints it.
fn line(window: &str, from: u64, area: &Area) -> String {
    let letter = |flag, letter| {
        if area.flags.contains(flag) {
            letter
        } else {
            '-'
        }
    };
    let offset = match area.object {
        Object::Anon => 0,
        _ => area.offset,
    };
    let hex = |value: u64| match value {
        // As printf has it.
        0 => "0".into(),
        _ => format!("{value:#x}"),
    };
    format!(
        "{window}+{}-{} {}{}{}{} {}",
        hex(area.start - from),
        hex(area.end - from),
        letter(VmFlags::READ, 'r'),
        letter(VmFlags::WRITE, 'w'),
        letter(VmFlags::EXEC, 'x'),
        if area.flags.contains(VmFlags::MAYSHARE) {
            's'
        } else {
            'p'
        },
        hex(offset)
    )
}

/// Whether the first offset that differs is of anonymous memory.
fn hidden_offset(predicted: &Outcome, observed: &Outcome) -> bool {
    let mut pairs = predicted.layout.iter().zip(&observed.layout);
    pairs
        .find(|(p, o)| p.offset != o.offset)
        .is_some_and(|(p, _)| p.object == Object::Anon)
}

/// What the headers of any C library of today have; all else is written as a number.
const IN_HEADERS: [&str; 37] = [
    "PROT_NONE",
    "PROT_READ",
    "PROT_WRITE",
    "PROT_EXEC",
    "PROT_GROWSDOWN",
    "MAP_SHARED",
    "MAP_PRIVATE",
    "MAP_FIXED",
    "MAP_FIXED_NOREPLACE",
    "MAP_ANONYMOUS",
    "MAP_GROWSDOWN",
    "MAP_DENYWRITE",
    "MAP_EXECUTABLE",
    "MAP_LOCKED",
    "MAP_NORESERVE",
    "MAP_POPULATE",
    "MAP_NONBLOCK",
    "MAP_STACK",
    "MAP_HUGETLB",
    "MREMAP_MAYMOVE",
    "MREMAP_FIXED",
    "MCL_CURRENT",
    "MCL_FUTURE",
    "MADV_NORMAL",
    "MADV_RANDOM",
    "MADV_SEQUENTIAL",
    "MADV_WILLNEED",
    "MADV_DONTNEED",
    "MADV_REMOVE",
    "MADV_DONTFORK",
    "MADV_DOFORK",
    "MADV_MERGEABLE",
    "MADV_UNMERGEABLE",
    "MADV_HUGEPAGE",
    "MADV_NOHUGEPAGE",
    "MADV_DONTDUMP",
    "MADV_DODUMP",
];
