# SPDX-License-Identifier: MIT OR GPL-2.0-only
#
# make help says what there is. Nothing is needed but make, git, bash, apt and unshare: all else is
# fetched once, into a cache outside the checkout (qemu-image/README.md).

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Taken as they are: no $ in RUN is make's.
vm: export VMALAB_RUN := $(value RUN)
vm: export VMALAB_FILES := $(value FILES)
vm: export VMALAB_APPEND := $(value APPEND)

export DURATION CALLS LEFT KERNEL ACCEL DEBIAN_MIRROR VMALAB_CACHE

help:
	@sed -n 's/^#> \{0,1\}//p' Makefile

#> vmalab: a laboratory for Linux memory mappings
#>
#>   make run          the demonstration: module, examples, 10,000 operations against the model
#>   make test         everything that must hold before a change lands
#>   make test-debug   the guest's tests on a kernel that checks itself: KASAN, lockdep, kmemleak, ...
#>   make test-selftests
#>                     the kernel's own tests of mm/, beside the module and on the device
#>   make kernels      kernels of other Debian releases against the model, each in QEMU
#>   make conformance  cases for other systems that answer the mmap family, and what some of those do
#>   make bench        what memory of the device costs, beside a memfd and others (make bench-device), and
#>                     what an operation costs in the model, beside the kernel's code (make bench-model)
#>   make coverage     what of mm/vma.c, and of the model, the generators reach: two minutes (OPS=1000000)
#>   make fuzz TIME=60 operations that the coverage of mm/vma.c leads to (TARGET=compare or allocations)
#>   make man          manual pages of the command vmalab  (build/man)
#>   make mutants      whether the model's tests notice changes of its code: an hour or so
#>   make vm           a shell in the guest, with the module loaded
#>   make vm RUN='./a x' FILES='path/a path/b'
#>                     a command in the guest, in a directory that holds the files
#>   make module       the module, for the guest's kernel    (build/module/vmalab.ko)
#>   make programs     the programs, static, for the guest   (build/target/)
#>   make fmt          formats all Rust sources
#>   make rust-analyzer
#>                     rust-project.json, by which editors know the module and the kernel's crates
#>   make clean        removes what was built here; make distclean: all of build/
#>   make cache-clean  empties the cache
#>
#>   make KDIR=/path/to/linux module    the module for another kernel tree that has Rust
#>
#> Variables:
#>   RUN, FILES        see above; a file the command leaves in $VMALAB_OUT comes to build/vm/out/
#>   KERNELS= OPS=100000 SEED=1
#>                     of make kernels: Debian suites (bullseye, experimental, pinned, ...), how much, and
#>                     from which seed
#>   DURATION=120 CALLS=100000
#>                     of make test-debug: seconds of races, and how many random ioctls
#>   LEFT=             of make test-debug: seconds that are left for it; it is skipped if it takes longer
#>   ONLY=             of the kernel's tests, these suites (tests/selftests/suites)
#>   TIMEOUT=300       seconds until a command in the guest is taken to hang
#>   SMP=2 MEM=1G      processors and memory of the guest (MEM=2G with KERNEL=debug)
#>   APPEND=           more for the guest's kernel command line
#>   KERNEL=7.2.12     another Debian kernel from backports than the pinned one
#>   KERNEL=bookworm   the newest kernel of another Debian suite, to boot without the module
#>   KERNEL=debug      the kernel of make test-debug; debug-7.2.12 picks the version, too
#>   ACCEL=            kvm or tcg, instead of what a probe finds
#>   VMALAB_CACHE=     the cache, a directory of yours (default: $XDG_CACHE_HOME or ~/.cache, /vmalab)
#>   DEBIAN_MIRROR=    where Debian's packages come from (default: Debian's own)
#>
#> Logs are in build/log/, reports for machines in build/report/.

run: module programs
	@tests/report run

test test-debug:
	@tests/report $@

test-selftests: export ONLY := $(ONLY)
test-selftests:
	@tests/report selftests

kernels: export KERNELS := $(KERNELS)
kernels: export OPS := $(OPS)
kernels: export SEED := $(SEED)
kernels:
	@tests/report kernels

conformance:
	@tests/report conformance

coverage:
	@VMALAB_KERNEL="$$(qemu-image/kernel)" qemu-image/enter tests/coverage/run $(or $(OPS),1000000)

fuzz:
	@VMALAB_KERNEL="$$(qemu-image/kernel)" qemu-image/enter differ/fuzz/run $(or $(TARGET),compare) $(or $(TIME),60)

man:
	@qemu-image/enter CARGO_TARGET_DIR="$(CURDIR)/build/target/host" \
		cargo run --quiet --release --locked -p vmalab-cli -- man build/man

bench: bench-device bench-model

mutants:
	@tests/mutants

bench-device: module
	@tests/bench-device

bench-model:
	@tests/bench-model

vm: module
	@files=(); for f in $$VMALAB_FILES; do files+=(--file "$$f"); done; \
	qemu-image/run "$${files[@]}" --append "$$VMALAB_APPEND" \
		$(if $(TIMEOUT),--timeout '$(TIMEOUT)') $(if $(SMP),--smp '$(SMP)') $(if $(MEM),--mem '$(MEM)') \
		-- $${VMALAB_RUN:+"$$VMALAB_RUN"}

ifdef KDIR
module:
	@qemu-image/check-tree $(KDIR)
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules
else
module:
	@qemu-image/module
endif

programs:
	@tests/programs

fmt:
	@VMALAB_KERNEL="$$(qemu-image/kernel)" qemu-image/enter sh -ec 'cargo fmt --all; \
		cargo fmt --manifest-path tests/no-std/Cargo.toml; \
		cargo fmt --manifest-path differ/fuzz/Cargo.toml; \
		find module tests/driver -type f -name "*.rs" | xargs rustfmt --edition 2021 --config-path /vmalab/linux/.rustfmt.toml'

rust-analyzer:
	@qemu-image/rust-project

# What kbuild leaves beside the sources with KDIR=, and cargo's usual directory.
kbuild-files := $(addprefix -o -name ,'*.o' '*.ko' '*.mod' '*.mod.c' '.*.cmd' '*.rmeta' '*.symvers' modules.order)

clean:
	rm -rf module/generated build/module* build/target build/vm* build/test build/demo build/driver* target tests/no-std/target
	@find . -maxdepth 1 -type f \( -false $(kbuild-files) \) -delete
	@find module -type f \( -false $(kbuild-files) \) -delete

distclean: clean
	rm -rf build rust-project.json

cache-clean:
	@. qemu-image/cache.sh && empty_cache

.PHONY: help run test coverage fuzz man mutants kernels conformance bench bench-device bench-model test-debug test-selftests vm module programs fmt rust-analyzer clean distclean cache-clean
