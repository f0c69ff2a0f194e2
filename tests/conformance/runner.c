/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * runner [--era NAME] [--examples N] [--no-fork] [--arena ADDRESS] CASE.json...
 *
 * Plays cases (docs/CONFORMANCE.md) on the system that it runs on, and says what that answered
 * otherwise than Linux does. One file, the C library alone:
 *
 *	cc -O2 -o runner runner.c
 *
 * A case ends at its first difference, for all that follows may differ because of it. Each case
 * has a process of its own, or with --no-fork an emptied arena in this one. The era is by default
 * the newest that is not newer than what uname says.
 *
 * Exit status: 0 no difference, 1 some, 2 it could not be played.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_mlock2
#define SYS_mlock2 325
#endif

#define PAGE 4096ul
#define MAX_AREAS 256
#define MAX_FILES 8
#define TEXT 2048

static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("runner: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(2);
}

/* --- JSON, as far as the cases need it: no escapes in strings, whole numbers --- */

struct json {
	enum { STRING, NUMBER, BOOL, ARRAY, OBJECT } kind;
	const char *key;		/* in an object */
	char *string;
	long number;
	struct json *first, *next;	/* of an array or an object */
};

static struct json *value(char **at, const char *path);

static char skip(char **at)
{
	*at += strspn(*at, " \t\r\n");
	return **at;
}

static char *word(char **at, const char *path)
{
	char *start = ++*at, *end = strpbrk(start, "\"\\");

	if (!end || *end != '"')
		die("%s: a string that this cannot read", path);
	*end = 0;
	*at = end + 1;
	return start;
}

static struct json *value(char **at, const char *path)
{
	struct json *new = calloc(1, sizeof(*new)), **last = &new->first;
	char c = skip(at);

	if (!new)
		die("no memory");
	if (c == '"') {
		new->kind = STRING;
		new->string = word(at, path);
	} else if (c == '[' || c == '{') {
		new->kind = c == '[' ? ARRAY : OBJECT;
		for (++*at; skip(at) != ']' && **at != '}'; *at += skip(at) == ',') {
			const char *key = NULL;

			if (c == '{') {
				if (**at != '"')
					die("%s: no key", path);
				key = word(at, path);
				if (skip(at) != ':')
					die("%s: no value", path);
				++*at;
			}
			*last = value(at, path);
			(*last)->key = key;
			last = &(*last)->next;
		}
		++*at;
	} else if (!strncmp(*at, "true", 4) || !strncmp(*at, "false", 5)) {
		new->kind = BOOL;
		new->number = c == 't';
		*at += c == 't' ? 4 : 5;
	} else if (c == '-' || isdigit((unsigned char)c)) {
		new->kind = NUMBER;
		new->number = strtol(*at, at, 10);
	} else {
		die("%s: this is not JSON", path);
	}
	return new;
}

static struct json *get(const struct json *object, const char *key)
{
	struct json *one = object->first;

	while (one && strcmp(one->key, key))
		one = one->next;
	if (!one)
		die("no member \"%s\"", key);
	return one;
}

static struct json *load(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text, *at;
	long size;

	if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0)
		die("%s: %s", path, strerror(errno));
	rewind(file);
	at = text = calloc(1, size + 1);
	if (!text || fread(text, 1, size, file) != (size_t)size)
		die("%s: cannot be read", path);
	fclose(file);
	return value(&at, path);
}

/* --- the arena --- */

static uint64_t arena = 0x10000000000, pages;

static struct file {
	const char *name;
	int fd;
	uint64_t inode;
} files[MAX_FILES];
static int n_files, scratch;

struct area {
	uint64_t start, end, offset, inode;
	char perms[5];
};

/* The areas in the arena, from /proc/self/maps; -1 if it cannot be read. */
static int look(struct area *areas)
{
	static char text[1 << 20];
	size_t used = 0;
	ssize_t got;
	char *line, *next;
	int n = 0, fd = open("/proc/self/maps", O_RDONLY);

	if (fd < 0)
		return -1;
	while ((got = read(fd, text + used, sizeof(text) - 1 - used)) > 0)
		used += got;
	close(fd);
	if (got < 0)
		return -1;
	text[used] = 0;
	for (line = text; *line && n < MAX_AREAS; line = next) {
		struct area *a = &areas[n];

		next = strchr(line, '\n');
		next = next ? next + 1 : line + strlen(line);
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*s %" SCNu64,
			   &a->start, &a->end, a->perms, &a->offset, &a->inode) == 5 &&
		    a->start < arena + pages * PAGE && a->end > arena)
			n++;
	}
	return n;
}

static const char *object(const struct area *a)
{
	for (int i = 0; i < n_files; i++)
		if (files[i].inode == a->inode && a->inode)
			return files[i].name;
	return a->inode ? "shared" : "anonymous";
}

static void open_files(const struct json *list)
{
	n_files = 0;
	for (const struct json *one = list->first; one && n_files < MAX_FILES; one = one->next) {
		struct file *file = &files[n_files++];
		struct area areas[MAX_AREAS];
		char path[64];
		void *mapped;

		file->name = get(one, "name")->string;
		file->fd = memfd_create(file->name, 0);
		if (file->fd < 0 || ftruncate(file->fd, get(one, "pages")->number * PAGE))
			die("memfd_create: %s", strerror(errno));
		if (!get(one, "writable")->number) {
			snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
			file->fd = open(path, O_RDONLY);
			if (file->fd < 0)
				die("%s: %s", path, strerror(errno));
		}
		/* The inode as /proc/self/maps shows it, which fstat may not. */
		mapped = mmap((void *)arena, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, file->fd, 0);
		if (mapped == MAP_FAILED || look(areas) != 1)
			die("cannot map a file, or see it in /proc/self/maps");
		file->inode = areas[0].inode;
		munmap(mapped, PAGE);
	}
}

/* --- a case --- */

static const struct { const char *name; int number; } errnos[] = {
#define E(name) { #name, name }
	E(EPERM), E(EINTR), E(EIO), E(E2BIG), E(EBADF), E(EAGAIN), E(ENOMEM), E(EACCES), E(EFAULT),
	E(EBUSY), E(EEXIST), E(ENODEV), E(EINVAL), E(ENOSPC), E(EOVERFLOW), E(EOPNOTSUPP), E(ENOSYS),
	E(ETXTBSY), E(EFBIG),
};

static uint64_t number(const char *text)
{
	if (!strncmp(text, "arena+", 6))
		return arena + strtoull(text + 6, NULL, 16);
	for (int i = 0; i < n_files; i++)
		if (!strcmp(text, files[i].name))
			return files[i].fd;
	return strcmp(text, "-1") ? strtoull(text, NULL, 16) : (uint64_t)-1;
}

static const char *kinds[] = {
	"mmap", "munmap", "mprotect", "mremap", "mlock", "mlock2", "munlock", "madvise", "touch",
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const long numbers[N_KINDS] = {
	SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_mlock, SYS_mlock2, SYS_munlock, SYS_madvise,
};

static int kind_of(const char *call)
{
	for (unsigned int i = 0; i < N_KINDS; i++)
		if (!strcmp(kinds[i], call))
			return i;
	die("a call that this does not know: %s", call);
	return -1;
}

/* Does a call, and writes down what it answers. */
static void do_call(const struct json *call, char *result)
{
	uint64_t args[6] = { 0 };
	int n = 0, kind = kind_of(get(call, "call")->string);
	const char *how = NULL;
	long got;

	for (const struct json *one = get(call, "args")->first; one && n < 6; one = one->next) {
		how = one->string;
		args[n++] = number(one->string);
	}
	if (numbers[kind])
		got = syscall(numbers[kind], args[0], args[1], args[2], args[3], args[4], args[5]);
	else if (!strcmp(how, "write"))
		got = pread(scratch, (void *)args[0], 1, 0);
	else
		got = pwrite(scratch, (void *)args[0], 1, 0);
	if (got == -1) {
		snprintf(result, 64, "errno %d", errno);
		for (unsigned int i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++)
			if (errnos[i].number == errno)
				strcpy(result, errnos[i].name);
	} else if (!numbers[kind]) {
		strcpy(result, "0x0");
	} else if ((uint64_t)got - arena <= 2 * pages * PAGE) {
		snprintf(result, 64, "arena+%#" PRIx64, (uint64_t)got - arena);
	} else {
		snprintf(result, 64, "%#lx", got);
	}
	/* 0 is printed without 0x. */
	if (!strcmp(result, "arena+0"))
		strcpy(result, "arena+0x0");
	if (!strcmp(result, "0"))
		strcpy(result, "0x0");
}

static void add(char *text, const char *format, ...)
{
	size_t used = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + used, TEXT - used, format, args);
	va_end(args);
}

static void expected_areas(const struct json *list, char *text)
{
	*text = 0;
	for (const struct json *a = list->first; a; a = a->next)
		add(text, " %ld-%ld %s %s+%s", get(a, "start")->number, get(a, "end")->number,
		    get(a, "perms")->string, get(a, "object")->string, get(a, "offset")->string);
}

static void seen_areas(char *text)
{
	struct area areas[MAX_AREAS];
	int n = look(areas);

	*text = 0;
	if (n < 0)
		add(text, " /proc/self/maps cannot be read");
	for (int i = 0; i < n; i++) {
		const struct area *a = &areas[i];
		uint64_t offset = a->inode ? a->offset : 0;

		add(text, " %" PRId64 "-%" PRId64 " %s %s+0x%" PRIx64, (int64_t)(a->start - arena) / (int64_t)PAGE,
		    (int64_t)(a->end - arena) / (int64_t)PAGE, a->perms, object(a), offset);
	}
}

/* What became of a case. */
struct outcome {
	unsigned int compared[N_KINDS];
	int index;			/* of the call being played, or that differs */
	enum { AGREES, RESULT, AREAS, DIED } what;
	char expected[TEXT], seen[TEXT];
};

static void play(const struct json *test, const struct json *outcomes, struct outcome *to)
{
	const struct json *answer = outcomes->first;

	open_files(get(test, "files"));
	for (const struct json *call = get(test, "calls")->first; call; call = call->next, answer = answer->next) {
		const char *result = get(answer, "result")->string;

		do_call(call, to->seen);
		to->compared[kind_of(get(call, "call")->string)]++;
		strcpy(to->expected, result);
		if (strcmp(to->seen, to->expected)) {
			to->what = RESULT;
			return;
		}
		expected_areas(get(answer, "areas"), to->expected);
		seen_areas(to->seen);
		if (strcmp(to->seen, to->expected)) {
			to->what = AREAS;
			return;
		}
		to->index++;
	}
}

/* In a process of its own, or in this one. */
static void play_apart(bool apart, const struct json *test, const struct json *outcomes, struct outcome *to)
{
	int status = 0;
	pid_t pid;

	if (!apart) {
		play(test, outcomes, to);
		for (int i = 0; i < n_files; i++)
			close(files[i].fd);
		munmap((void *)arena, pages * PAGE);
		return;
	}
	fflush(NULL);
	pid = fork();
	if (!pid) {
		play(test, outcomes, to);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("fork: %s", strerror(errno));
	if (status) {
		to->what = DIED;
		strcpy(to->expected, "the process lives on");
		sprintf(to->seen, "wait status %#x", status);
	}
}

/* The outcomes of the era, or of the newest that is not newer than the kernel. */
static const struct json *choose(const struct json *test, const char *era, const char **name)
{
	const struct json *best = NULL;
	long best_since = -1, version[3] = { 0 };
	struct utsname uts;

	uname(&uts);
	sscanf(uts.release, "%ld.%ld.%ld", &version[0], &version[1], &version[2]);
	for (const struct json *one = get(test, "expected")->first; one; one = one->next) {
		for (const struct json *e = get(one, "eras")->first; e; e = e->next) {
			const struct json *s = get(e, "since")->first;
			long since = s->number * 1000000 + s->next->number * 1000 + s->next->next->number;
			long running = version[0] * 1000000 + version[1] * 1000 + version[2];
			const char *this = get(e, "name")->string;

			if (era ? !strcmp(era, this) : since <= running && since > best_since) {
				best = get(one, "outcomes");
				best_since = since;
				*name = this;
			}
		}
	}
	if (!best)
		die("no case says what %s answers", era ? era : uts.release);
	return best;
}

int main(int argc, char **argv)
{
	unsigned int compared[N_KINDS] = { 0 }, wrong[N_KINDS][4] = { { 0 } }, examples = 1, cases = 0, bad = 0;
	const char *era = NULL, *name = NULL;
	struct outcome *to;
	bool apart = true;
	int i;

	for (i = 1; i < argc && !strncmp(argv[i], "--", 2); i++) {
		if (!strcmp(argv[i], "--no-fork"))
			apart = false;
		else if (!strcmp(argv[i], "--era") && i + 1 < argc)
			era = argv[++i];
		else if (!strcmp(argv[i], "--examples") && i + 1 < argc)
			examples = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--arena") && i + 1 < argc)
			arena = strtoull(argv[++i], NULL, 0);
		else
			die("see the beginning of runner.c for how it is used");
	}
	if (i == argc)
		die("which cases?");
	/* Shared with the processes of the cases. */
	to = mmap(NULL, sizeof(*to), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	scratch = memfd_create("scratch", 0);
	if (to == MAP_FAILED || scratch < 0 || ftruncate(scratch, PAGE))
		die("no memory, or no memfd_create");
	for (; i < argc; i++) {
		const struct json *test = load(argv[i]), *outcomes = choose(test, era, &name), *call;
		struct area areas[MAX_AREAS];
		int kind;

		if (get(test, "format")->number != 1)
			die("%s: another format", argv[i]);
		pages = get(test, "pages")->number;
		if (look(areas))
			die("there is something at %#" PRIx64 ", or no /proc/self/maps: choose another --arena", arena);
		memset(to, 0, sizeof(*to));
		play_apart(apart, test, outcomes, to);
		cases++;
		for (unsigned int k = 0; k < N_KINDS; k++)
			compared[k] += to->compared[k];
		if (to->what == AGREES)
			continue;
		bad++;
		call = get(test, "calls")->first;
		for (int n = 0; n < to->index; n++)
			call = call->next;
		kind = kind_of(get(call, "call")->string);
		if (wrong[kind][to->what]++ < examples) {
			printf("%s, call %d: %s\n", argv[i], to->index, get(call, "text")->string);
			printf("  expected %s%s\n", to->what == AREAS ? "areas" : "", to->expected);
			printf("  seen     %s%s\n", to->what == AREAS ? "areas" : "", to->seen);
		}
	}
	printf("%-10s %9s %13s %13s %6s\n", "call", "compared", "wrong result", "wrong areas", "died");
	for (unsigned int k = 0; k < N_KINDS; k++)
		printf("%-10s %9u %13u %13u %6u\n", kinds[k], compared[k], wrong[k][RESULT], wrong[k][AREAS], wrong[k][DIED]);
	printf("%u of %u cases differ from %s\n", bad, cases, name);
	return bad > 0;
}
