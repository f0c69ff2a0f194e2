/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Maps /dev/vmalab, writes, unmaps the middle, forks, and checks what is left,
 * in the child and in the parent. Exits with 0 only if all of it holds.
 *
 * Only the first lines of round_of() need libvmalab. What is mapped is memory like
 * any other, and the rest is plain POSIX.
 */
#include <libvmalab.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 6

static size_t page;

static void give_up(const char *what)
{
	perror(what);
	exit(1);
}

static void give_up_vmalab(void)
{
	fprintf(stderr, "%s\n", vmalab_last_error());
	exit(1);
}

static void check(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "does not hold: %s\n", what);
		exit(1);
	}
}

/*
 * The letter that fills a page, '?' if it is torn, '.' if there is no page. The
 * kernel reads the page into a pipe for us: write() answers EFAULT where we
 * would die.
 */
static char look_at(const char *addr)
{
	char bytes[page];
	char letter;
	int fds[2];

	if (pipe(fds))
		give_up("pipe");
	if (write(fds[1], addr, page) < 0) {
		if (errno != EFAULT)
			give_up("write");
		letter = '.';
	} else {
		ssize_t got = read(fds[0], bytes, page);

		letter = bytes[0];
		if (got != (ssize_t)page || memcmp(bytes, bytes + 1, page - 1))
			letter = '?';
	}
	close(fds[0]);
	close(fds[1]);
	return letter;
}

/* Draws the pages, and compares them with what they should be. */
static void look(const char *who, const char *addr, const char *expected)
{
	char seen[PAGES + 1] = "";

	printf("    %-7s|", who);
	for (int i = 0; i < PAGES; i++) {
		seen[i] = look_at(addr + i * page);
		printf(" %c |", seen[i]);
	}
	printf("\n");
	fflush(stdout);
	check(strcmp(seen, expected) == 0, expected);
}

static void check_areas(const struct vmalab_device *device, unsigned long expected)
{
	struct vmalab_stats stats;

	if (vmalab_get_stats(device, VMALAB_SCOPE_OBJECT, &stats))
		give_up_vmalab();
	check(stats.areas == expected, "the number of areas that the module counts");
}

/* Writes letters from first on, a page each, where the page is mapped. */
static void write_letters(char *addr, char first)
{
	for (int i = 0; i < PAGES; i++)
		if (look_at(addr + i * page) != '.')
			memset(addr + i * page, first + i, page);
}

static void round_of(const char *name, int flags, const char *parent_after)
{
	struct vmalab_device *device = vmalab_open(NULL);
	char *addr;
	int status;
	pid_t child;

	if (!device || vmalab_set_size(device, PAGES * page))
		give_up_vmalab();
	addr = vmalab_map(device, NULL, PAGES * page, PROT_READ | PROT_WRITE, flags, 0);
	if (addr == MAP_FAILED)
		give_up_vmalab();

	printf("%s: %d pages, written, the middle unmapped, forked\n", name, PAGES);
	write_letters(addr, 'A');
	look("whole", addr, "ABCDEF");
	check_areas(device, 1);

	if (munmap(addr + 2 * page, 2 * page))
		give_up("munmap");
	look("cut", addr, "AB..EF");
	check_areas(device, 2);

	child = fork();
	if (child < 0)
		give_up("fork");
	if (child == 0) {
		check_areas(device, 4);
		look("child", addr, "AB..EF");
		write_letters(addr, 'a');
		look("child", addr, "ab..ef");
		exit(0);
	}
	if (waitpid(child, &status, 0) != child)
		give_up("waitpid");
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child's checks");
	look("parent", addr, parent_after);
	check_areas(device, 2);

	/* One call takes both sides; the hole between them does not matter. */
	if (munmap(addr, PAGES * page))
		give_up("munmap");
	look("gone", addr, "......");
	check_areas(device, 0);
	vmalab_close(device);
}

int main(void)
{
	page = sysconf(_SC_PAGESIZE);
	round_of("shared", MAP_SHARED, "ab..ef");
	round_of("private", MAP_PRIVATE, "AB..EF");
	printf("all of it holds\n");
	return 0;
}
