/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Shows the hooks that the kernel calls while the middle of a mapping is
 * unmapped, one drawing a line. Exits with 0 only if they are the right ones.
 */
#include <libvmalab.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 6

int main(void)
{
	static const unsigned int expected[] = {
		VMALAB_HOOK_MAY_SPLIT, VMALAB_HOOK_OPEN, VMALAB_HOOK_MAY_SPLIT, VMALAB_HOOK_OPEN,
		VMALAB_HOOK_CLOSE,
	};
	struct vmalab_device *device = vmalab_open(NULL);
	struct vmalab_event events[16];
	size_t page = sysconf(_SC_PAGESIZE);
	ssize_t number;
	int watch;
	char *addr;

	if (!device || vmalab_set_size(device, PAGES * page))
		goto failed;
	addr = vmalab_map(device, NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	if (addr == MAP_FAILED)
		goto failed;
	watch = vmalab_watch_open(device, ~0ULL >> (64 - VMALAB_NR_HOOKS), 64);
	if (watch < 0)
		goto failed;

	if (munmap(addr + 2 * page, 2 * page)) {
		perror("munmap");
		return 1;
	}
	number = vmalab_watch_read(watch, events, 16, 0);
	if (number < 0)
		goto failed;
	for (ssize_t i = 0; i < number; i++) {
		size_t first = (events[i].start - (__u64)(size_t)addr) / page;
		size_t end = (events[i].end - (__u64)(size_t)addr) / page;

		printf("    %-10s|", vmalab_hook_name(events[i].hook));
		for (size_t at = 0; at < PAGES; at++)
			printf("%s|", at >= first && at < end ? "###" : "   ");
		printf("\n");
		if (i >= 5 || events[i].hook != expected[i]) {
			fprintf(stderr, "another hook was expected\n");
			return 1;
		}
	}
	close(watch);
	vmalab_close(device);
	return number == 5 ? 0 : 1;
failed:
	fprintf(stderr, "%s\n", vmalab_last_error());
	return 1;
}
