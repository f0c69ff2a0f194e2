/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * libvmalab: mappings of /dev/vmalab for C programs.
 *
 * Every open of the node makes one memory object: zeroed pages by offset,
 * allocated when they are first touched. Mappings of it are plain memory:
 * munmap(), mprotect(), mremap() and fork() work on them as on any other.
 *
 * A call that fails returns -1 (NULL, MAP_FAILED), sets errno, and leaves a
 * sentence for vmalab_last_error() that says what to do. All calls may be made
 * from several threads at once.
 *
 * Made by cbindgen from the Rust source: change that, not this.
 */

#ifndef LIBVMALAB_H
#define LIBVMALAB_H

#include <stddef.h>
#include <stdint.h>
#include "vmalab.h"

/**
 * A descriptor of the node, from vmalab_open() to vmalab_close().
 */
struct vmalab_device;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens the node for reading and writing, which makes a new object.
 *
 * path: the node, or NULL for /dev/vmalab.
 *
 * Returns the device, to be closed with vmalab_close(), or NULL. Errors: ENOENT or ENXIO if the
 * module is not loaded, EACCES if this user may not open the node, and all others of open(2).
 *
 * # Safety
 * path is NULL or a string that ends with a zero byte.
 */
struct vmalab_device *vmalab_open(const char *path);

/**
 * Closes the device. Mappings of it stay, and keep the object alive. NULL is ignored.
 *
 * # Safety
 * device is NULL or comes from vmalab_open() and is not used again.
 */
void vmalab_close(struct vmalab_device *device);

/**
 * The file descriptor of the device, for calls that this library does not wrap: mmap(2), dup(2),
 * ioctl(2) with the requests of vmalab.h. It is closed by vmalab_close().
 *
 * Returns the descriptor, or -1. Errors: EINVAL if the device is NULL.
 *
 * # Safety
 * device is NULL or an open device.
 */
int vmalab_fd(const struct vmalab_device *device);

/**
 * Reads the size of the object, in bytes, into *size.
 *
 * Returns 0, or -1. Errors: EINVAL if an argument is NULL.
 *
 * # Safety
 * device is NULL or an open device; size is NULL or may be written to.
 */
int vmalab_get_size(const struct vmalab_device *device, uint64_t *size);

/**
 * Sets the size of the object to size bytes, rounded up to whole pages. Pages past a smaller end
 * are freed, and touching them raises SIGBUS, as with ftruncate(2).
 *
 * Returns 0, or -1. Errors: EFBIG if it is larger than the module allows, EPERM if the object is sealed
 * against it, EINVAL if the device is NULL.
 *
 * # Safety
 * device is NULL or an open device.
 */
int vmalab_set_size(const struct vmalab_device *device,
                    uint64_t size);

/**
 * Reads in pieces of how many bytes the object allocates memory from now on into *size.
 *
 * Returns 0, or -1. Errors: EINVAL if one of the arguments is NULL, ENOTTY if the module is too old.
 *
 * # Safety
 * device is NULL or an open device; size is NULL or may be written to.
 */
int vmalab_get_folio_size(const struct vmalab_device *device,
                          uint64_t *size);

/**
 * Has the object allocate memory in pieces of size bytes from now on: a power of two, from one page
 * to 2 MiB, or 0 for what a fresh object has. See VMALAB_IOC_SET_FOLIO_SIZE.
 *
 * Returns 0, or -1. Errors: EINVAL if there is no such size or the device is NULL, ENOTTY if the
 * module is too old.
 *
 * # Safety
 * device is NULL or an open device.
 */
int vmalab_set_folio_size(const struct vmalab_device *device, uint64_t size);

/**
 * Reads the counts into *stats.
 *
 * scope: VMALAB_SCOPE_OBJECT for the object of this device, VMALAB_SCOPE_MODULE for everything
 * since the module was loaded.
 *
 * Returns 0, or -1. Errors: EINVAL for another scope or an argument that is NULL.
 *
 * # Safety
 * device is NULL or an open device; stats is NULL or may be written to.
 */
int vmalab_get_stats(const struct vmalab_device *device,
                     uint32_t scope,
                     struct vmalab_stats *stats);

/**
 * Reads the areas of this process that overlap [start, end), and its counters, at one moment.
 *
 * areas: where to, with room for capacity of them; may be NULL if capacity is 0.
 * answer: its filled says how many were written, its count how many there are, and the rest is the
 * counters. If there are more than were written, ask again with more room.
 *
 * Returns 0, or -1. Errors: EINVAL if the range ends before it begins, or device or answer is NULL;
 * ENOMEM.
 *
 * # Safety
 * device is NULL or an open device; areas is NULL or has room for capacity structures; answer is NULL
 * or may be written to.
 */
int vmalab_get_areas(const struct vmalab_device *device,
                     size_t start,
                     size_t end,
                     struct vmalab_area *areas,
                     size_t capacity,
                     struct vmalab_areas *answer);

/**
 * Asks what munmap(addr, length) would do now, if there may be max_map_count areas
 * (/proc/sys/vm/max_map_count). Nothing is done.
 *
 * steps: where to write what it would do, with room for capacity steps; may be NULL if capacity is 0.
 * answer: its error is the errno that munmap would fail with, or 0; its filled says how many steps were
 * written, its count how many there are; the rest says by how much the counters would change.
 *
 * Returns 0, or -1. Errors: EINVAL if device or answer is NULL; ENOMEM.
 *
 * # Safety
 * device is NULL or an open device; steps is NULL or has room for capacity structures; answer is NULL
 * or may be written to.
 */
int vmalab_would_unmap(const struct vmalab_device *device,
                       size_t addr,
                       size_t length,
                       uint64_t max_map_count,
                       struct vmalab_step *steps,
                       size_t capacity,
                       struct vmalab_unmapping *answer);

/**
 * Allocates pages of the object, or frees them, as fallocate(2) does with a file.
 *
 * mode: VMALAB_FALLOCATE_ALLOCATE, VMALAB_FALLOCATE_KEEP_SIZE or VMALAB_FALLOCATE_PUNCH_HOLE.
 *
 * Returns 0, or -1. Errors: EINVAL if length is 0 or the device is NULL, EOPNOTSUPP for another mode,
 * EFBIG past the largest size that the module allows, ENOSPC if it allows no more pages, EPERM if the
 * object is sealed against it, ENOMEM, EINTR.
 *
 * # Safety
 * device is NULL or an open device.
 */
int vmalab_fallocate(const struct vmalab_device *device,
                     uint32_t mode,
                     uint64_t offset,
                     uint64_t length);

/**
 * Forbids something for good, for all who have the object: VMALAB_SEAL_*, ored, as F_ADD_SEALS of
 * fcntl(2) does for a memfd.
 *
 * Returns 0, or -1. Errors: EBUSY for VMALAB_SEAL_WRITE while somebody can still write to a shared
 * mapping, EPERM if it is sealed against more seals, EINVAL for an unknown seal or if the device is
 * NULL.
 *
 * # Safety
 * device is NULL or an open device.
 */
int vmalab_add_seals(const struct vmalab_device *device, uint32_t seals);

/**
 * Reads what is forbidden into *seals.
 *
 * Returns 0, or -1. Errors: EINVAL if an argument is NULL.
 *
 * # Safety
 * device is NULL or an open device; seals is NULL or may be written to.
 */
int vmalab_get_seals(const struct vmalab_device *device, uint32_t *seals);

/**
 * Which pages have been written to since the last call with VMALAB_WRITTEN_CLEAR. *written says where
 * to look and has the space for the answer; afterwards it says where to go on: call it until length
 * is 0.
 *
 * Returns 0, or -1. Errors: EINVAL if these are no whole pages, if there is no space, or if an
 * argument is NULL; ENOMEM; EFAULT.
 *
 * # Safety
 * device is NULL or an open device; written is NULL or may be written to, and so may n_ranges ranges at
 * the address in it.
 */
int vmalab_get_written(const struct vmalab_device *device,
                       struct vmalab_written *written);

/**
 * Gives the object a name, by which other processes can open it: those whom mode allows, as the mode
 * of a file. Or takes its name away, if name is NULL. It is gone with the last descriptor and the last
 * mapping of the object, too.
 *
 * Returns 0, or -1. Errors: EEXIST if another object has this name, EBUSY if this one has a name,
 * EINVAL for a name that is empty, too long or not printable, for a mode that is not within 0666, or if
 * the device is NULL; ENOMEM.
 *
 * # Safety
 * device is NULL or an open device; name is NULL or a string that ends with a zero byte.
 */
int vmalab_set_name(const struct vmalab_device *device,
                    const char *name,
                    uint32_t mode);

/**
 * Opens the object that has this name, for reading and writing.
 *
 * Returns the device, to be closed with vmalab_close(), or NULL. Errors: ENOENT if no object has this
 * name, EACCES if its mode does not allow it, EINVAL if name is NULL or no name, and those of
 * vmalab_open().
 *
 * # Safety
 * name is NULL or a string that ends with a zero byte.
 */
struct vmalab_device *vmalab_open_named(const char *name);

/**
 * Sets the flags that areas of the object get which are mapped from now on.
 *
 * flags: of enum vmalab_area_flags, ored.
 *
 * Returns 0, or -1. Errors: EINVAL for unknown flags, for PFNMAP together with MIXEDMAP, or if the
 * device is NULL.
 *
 * # Safety
 * device is NULL or an open device.
 */
int vmalab_set_area_flags(const struct vmalab_device *device, uint64_t flags);

/**
 * Adds a rule: calls of a hook from now on are answered otherwise than they would be.
 *
 * rule: see struct vmalab_rule; hook, answer and nth must be set, and error, delay_us, offset,
 * length and times as needed, all else be zero. Its id is filled in.
 *
 * Returns 0, or -1. Errors: EINVAL if the hook has no such answer, a number is not as it must be, or an
 * argument is NULL; ENOSPC if the object has VMALAB_MAX_RULES rules; EPERM for HWPOISON without
 * CAP_SYS_ADMIN.
 *
 * # Safety
 * device is NULL or an open device; rule is NULL or may be read and written to.
 */
int vmalab_add_rule(const struct vmalab_device *device,
                    struct vmalab_rule *rule);

/**
 * Reads how often the rule of rule->id has been used, into n_calls and n_fired.
 *
 * Returns 0, or -1. Errors: ENOENT if there is no such rule, EINVAL if an argument is NULL.
 *
 * # Safety
 * device is NULL or an open device; rule is NULL or may be read and written to.
 */
int vmalab_get_rule(const struct vmalab_device *device, struct vmalab_rule *rule);

/**
 * Removes a rule.
 *
 * id: that of the rule, or 0 for all.
 *
 * Returns 0, or -1. Errors: ENOENT if there is no such rule, EINVAL if the device is NULL.
 *
 * # Safety
 * device is NULL or an open device.
 */
int vmalab_clear_rules(const struct vmalab_device *device, uint32_t id);

/**
 * Maps length bytes of the object from offset on, as mmap(2) does.
 *
 * addr: where, if that is free, or NULL; with MAP_FIXED in flags, where in any case.
 * prot: PROT_READ, PROT_WRITE, PROT_EXEC or PROT_NONE.
 * flags: MAP_SHARED or MAP_PRIVATE, and any other of mmap(2).
 *
 * Returns the address, or MAP_FAILED. Errors: those of mmap(2); EINVAL if the device is NULL.
 *
 * # Safety
 * device is NULL or an open device; with MAP_FIXED, nothing else uses the range.
 */
void *vmalab_map(const struct vmalab_device *device,
                 void *addr,
                 size_t length,
                 int prot,
                 int flags,
                 uint64_t offset);

/**
 * Unmaps length bytes from addr on, as munmap(2) does, which can be used instead: a whole mapping,
 * its head, its tail or its middle. What remains on either side keeps its contents.
 *
 * Returns 0, or -1. Errors: EINVAL if addr is no multiple of the page size or the length is 0;
 * ENOMEM if taking a middle out makes more areas than vm.max_map_count; EPERM if it is sealed.
 *
 * # Safety
 * Nothing uses the range any more.
 */
int vmalab_unmap(void *addr, size_t length);

/**
 * Watches the object: records the calls of some hooks from now on.
 *
 * hooks: which, a mask of 1 << VMALAB_HOOK_...
 * records: for how many that are not read yet there is room, a power of two up to 65536.
 *
 * Returns a new descriptor, to be closed with close(2), or -1. It does not block; vmalab_watch_read()
 * waits, and so does poll(2). It can be mapped, as struct vmalab_ring says. Errors: EINVAL for a
 * hook or a number that is not possible, or if the device is NULL; EBUSY if eight watch the object
 * already; EBADF if the device is open for reading only.
 *
 * # Safety
 * device is NULL or an open device.
 */
int vmalab_watch_open(const struct vmalab_device *device,
                      uint64_t hooks,
                      uint32_t records);

/**
 * Reads up to count records of a watch into events. Where a sequence number is missing, calls were
 * lost because nobody read in time.
 *
 * watch: the descriptor from vmalab_watch_open().
 * timeout: in milliseconds, how long to wait for the first; 0 not at all, -1 without a limit.
 *
 * Returns how many there are; 0 if the time was over, or the object is gone, of which poll(2) tells
 * with POLLHUP; or -1. Errors: EINVAL if events is NULL or count is 0; EBADF; EINTR by a signal;
 * EIO if somebody has mapped the ring and stored a wrong tail.
 *
 * # Safety
 * events is NULL or has room for count records.
 */
ptrdiff_t vmalab_watch_read(int watch, struct vmalab_event *events, size_t count, int timeout);

/**
 * The kernel's name of a hook, enum vmalab_hook, or NULL if there is none of that number.
 */
const char *vmalab_hook_name(uint32_t hook);

/**
 * What went wrong in the last call of this library that failed in this thread, and what to do: a
 * sentence without a line end. The empty string if none has failed.
 *
 * It is valid until another call fails in this thread, or the thread ends.
 */
const char *vmalab_last_error(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LIBVMALAB_H */
