// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * stand-in.so: preloaded into a test that was written for files, it gives the
 * test objects of /dev/vmalab, or memfds, where the test wants memory of its
 * own. The test itself is not changed. From the environment:
 *
 *   STAND_IN       /dev/vmalab, /dev/vmalab-prepare, or memfd: what is given
 *   STAND_IN_FOR   any of
 *                    m  files without a name: memfd_create
 *                    f  others: tmpfile, mkstemp, open that creates
 *                    s  shared anonymous mappings: each an object of its own, as
 *                       the kernel gives each a file of its own
 *                    p  private anonymous mappings: all private mappings of one
 *                       object that nobody writes to, at the offset that is
 *                       their address; so neighbours can be merged, as anonymous
 *                       areas can, whose offset is their address, too
 *                    n  nothing: the test opens the node itself
 *                    r  raw frames: the test opens the node itself, and its areas
 *                       are VM_PFNMAP
 *
 * With a memfd, exactly the same is replaced at the same places. What differs
 * between the two is the device's doing.
 *
 * Left alone: what is hugetlb, droppable or grows down, for that is no file's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "vmalab.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

/* The size of the object behind private mappings, and the module's default limit. */
#define ARENA (1ULL << 40)

/* A file of the test's that an object stands in for, and that may be opened again. */
struct replaced {
	dev_t dev;
	ino_t ino;
	int object;
};

static struct replaced replaced[64];
static size_t n_replaced;

static const char *kind;
static const char *what = "";
static int arena = -1;
static dev_t node;

static void *kernel_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

static int kernel_open(const char *path, int flags, mode_t mode)
{
	return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static bool wants(char c)
{
	return kind && strchr(what, c);
}

static bool is_memfd(void)
{
	return !strcmp(kind, "memfd");
}

static void give_up(const char *why)
{
	dprintf(2, "stand-in: %s: %s\n", why, strerror(errno));
	_exit(99);
}

static int set_size(int fd, off_t size)
{
	struct vmalab_size request = { .size = size };

	if (is_memfd())
		return syscall(SYS_ftruncate, fd, size);
	return ioctl(fd, VMALAB_IOC_SET_SIZE, &request);
}

static off_t object_size(int fd)
{
	struct vmalab_size request = { 0 };

	return ioctl(fd, VMALAB_IOC_GET_SIZE, &request) ? -1 : (off_t)request.size;
}

static int new_object(off_t size, unsigned int memfd_flags)
{
	int fd;

	if (is_memfd())
		fd = syscall(SYS_memfd_create, "stand-in", memfd_flags);
	else
		fd = kernel_open(kind, O_RDWR | (memfd_flags & MFD_CLOEXEC ? O_CLOEXEC : 0), 0);
	if (fd < 0 || set_size(fd, size))
		give_up("no object");
	return fd;
}

__attribute__((constructor)) static void start(void)
{
	struct stat st;
	int fd;

	kind = getenv("STAND_IN");
	if (getenv("STAND_IN_FOR"))
		what = getenv("STAND_IN_FOR");
	if (!kind)
		return;
	if (!is_memfd()) {
		if (stat(kind, &st))
			give_up(kind);
		node = st.st_rdev;
	}
	if (wants('p')) {
		fd = new_object(ARENA, MFD_CLOEXEC);
		/* away from the numbers that tests may expect */
		arena = fcntl(fd, F_DUPFD_CLOEXEC, 900);
		close(fd);
	}
}

/* Whether the descriptor is of an object of the device. */
static bool is_object(int fd)
{
	struct stat st;

	return kind && !is_memfd() && !syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) &&
	       S_ISCHR(st.st_mode) && st.st_rdev == node;
}

/* Puts an object in the place of a file that was just opened, or that which stands in for it already. */
static int replace(int fd, int flags)
{
	struct stat st;
	size_t i;
	int object;

	if (fd < 0 || syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) || !S_ISREG(st.st_mode))
		return fd;
	for (i = 0; i < n_replaced; i++)
		if (replaced[i].dev == st.st_dev && replaced[i].ino == st.st_ino)
			break;
	if (i == n_replaced) {
		if (!(flags & (O_CREAT | __O_TMPFILE)))
			return fd;
		if (i == sizeof(replaced) / sizeof(replaced[0]))
			give_up("too many files");
		object = new_object(0, MFD_ALLOW_SEALING);
		dup3(object, fd, flags & O_CLOEXEC);
		/* A file without a name comes to no other descriptor by its name. */
		if (st.st_nlink) {
			replaced[i].dev = st.st_dev;
			replaced[i].ino = st.st_ino;
			replaced[i].object = fcntl(object, F_DUPFD_CLOEXEC, 900);
			n_replaced++;
		}
		close(object);
		return fd;
	}
	dup3(replaced[i].object, fd, flags & O_CLOEXEC);
	return fd;
}

int memfd_create(const char *name, unsigned int flags)
{
	if (!wants('m') || flags & MFD_HUGETLB)
		return syscall(SYS_memfd_create, name, flags);
	return new_object(0, flags);
}

FILE *tmpfile(void)
{
	FILE *(*next)(void) = (__typeof__(next))dlsym(RTLD_NEXT, "tmpfile");
	FILE *file = next();

	if (file && wants('f'))
		replace(fileno(file), O_CREAT);
	return file;
}

int mkstemp(char *template)
{
	int (*next)(char *) = (__typeof__(next))dlsym(RTLD_NEXT, "mkstemp");
	int fd = next(template);

	return wants('f') ? replace(fd, O_CREAT) : fd;
}

/* The node, with areas of frames: what they shall be, only who may write can say. */
static int open_frames(int flags)
{
	struct vmalab_new_areas request = { .flags = VMALAB_AREA_PFNMAP };
	int fd = kernel_open(kind, (flags & ~O_ACCMODE) | O_RDWR, 0);

	if (fd < 0 || ioctl(fd, VMALAB_IOC_SET_NEW_AREAS, &request))
		give_up("no object of frames");
	return fd;
}

static int open_mode(const char *path, int flags, mode_t mode)
{
	if (wants('r') && !strcmp(path, kind))
		return open_frames(flags);
	return wants('f') ? replace(kernel_open(path, flags, mode), flags) : kernel_open(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	return open_mode(path, flags, mode);
}

int open64(const char *, int, ...) __attribute__((alias("open")));

int ftruncate(int fd, off_t size)
{
	return is_object(fd) ? set_size(fd, size) : syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int, off_t) __attribute__((alias("ftruncate")));

/* Makes an object at least so large: reading and writing do not move its end. */
static int grow(int fd, off_t end)
{
	return end > object_size(fd) ? set_size(fd, end) : 0;
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	if (is_object(fd) && !mode)
		return grow(fd, offset + len);
	return syscall(SYS_fallocate, fd, mode, offset, len);
}

int fallocate64(int, int, off_t, off_t) __attribute__((alias("fallocate")));

ssize_t write(int fd, const void *data, size_t len)
{
	if (is_object(fd) && grow(fd, syscall(SYS_lseek, fd, 0, SEEK_CUR) + len))
		return -1;
	return syscall(SYS_write, fd, data, len);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
	if (is_object(fd) && grow(fd, offset + len))
		return -1;
	return syscall(SYS_pwrite64, fd, data, len, offset);
}

ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));

int fstat(int fd, struct stat *st)
{
	int result = syscall(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH);

	if (!result && is_object(fd))
		st->st_size = object_size(fd);
	return result;
}

int fstat64(int, struct stat64 *) __attribute__((alias("fstat")));

int stat(const char *path, struct stat *st)
{
	int result = syscall(SYS_newfstatat, AT_FDCWD, path, st, 0);
	size_t i;

	for (i = 0; !result && i < n_replaced; i++)
		if (replaced[i].dev == st->st_dev && replaced[i].ino == st->st_ino)
			return fstat(replaced[i].object, st);
	return result;
}

int stat64(const char *, struct stat64 *) __attribute__((alias("stat")));

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	int type = flags & MAP_TYPE;
	void *p;

	if (!(flags & MAP_ANONYMOUS) || flags & (MAP_HUGETLB | MAP_GROWSDOWN) || type == MAP_DROPPABLE || !len)
		return kernel_mmap(addr, len, prot, flags, fd, offset);
	if (type != MAP_PRIVATE && wants('s')) {
		fd = new_object(len, MFD_CLOEXEC);
		p = kernel_mmap(addr, len, prot, flags & ~MAP_ANONYMOUS, fd, 0);
		close(fd);
		return p;
	}
	if (type == MAP_PRIVATE && wants('p')) {
		/* the kernel chooses the address as it would */
		if (!(flags & MAP_FIXED)) {
			addr = kernel_mmap(addr, len, PROT_NONE, flags & ~(MAP_POPULATE | MAP_LOCKED), -1, 0);
			if (addr == MAP_FAILED)
				return addr;
		}
		flags &= ~(MAP_ANONYMOUS | MAP_FIXED_NOREPLACE);
		return kernel_mmap(addr, len, prot, flags | MAP_FIXED, arena, (uintptr_t)addr % ARENA);
	}
	return kernel_mmap(addr, len, prot, flags, fd, offset);
}

void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));
