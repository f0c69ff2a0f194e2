# SPDX-License-Identifier: MIT OR GPL-2.0-only
# shellcheck shell=bash
#
# What the scripts here share: where things are, how a big thing is made once and kept, and how
# progress is shown. Read with `.`; the messages go to stderr, so that stdout is free for answers.
#
# The rule of the cache: a directory $cache/NAME-KEY is whole, or it is not there. It is made as
# NAME-KEY.tmp under the lock NAME.lock and renamed when it is complete.

set -euo pipefail
umask 022
export LC_ALL=C.UTF-8

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
checkout=${here%/*}
logs=$checkout/build/log

say() { printf '%s\n' "$*" >&2; }
die() { say "vmalab: $*"; exit 1; }

[[ $(uname -m) == x86_64 ]] || die "this needs an x86_64 machine; this one is $(uname -m)"
[[ -n ${VMALAB_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-} ]] || die "HOME is not set: say where the cache shall be with VMALAB_CACHE="
cache=${VMALAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmalab}
[[ $cache == /* ]] || die "VMALAB_CACHE must be an absolute path, not '$cache'"
[[ $checkout != *[[:space:]:]* ]] || die "the kernel's build cannot work below a path with spaces or colons: move the checkout away from '$checkout'"
[[ $cache != *[[:space:]:]* ]] || die "the cache's path must have no spaces or colons: set VMALAB_CACHE= to another place than '$cache'"

# The command that gives the next one mounts of its own, and, to an ordinary user, the right to mount.
own_mounts=(unshare --mount)
((EUID == 0)) || own_mounts=(unshare --user --map-root-user --mount)

can_mount() {
	"${own_mounts[@]}" mount -t tmpfs tmpfs /tmp 2>/dev/null && return
	if ((EUID == 0)); then
		die "this root may not mount: in a container, start it with --privileged (or --cap-add SYS_ADMIN and no seccomp and AppArmor profile)"
	fi
	die "this user may not make a user namespace: as root, allow it (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces=10000, kernel.apparmor_restrict_unprivileged_userns=0), or run this as root"
}

# use_cache: makes the cache's directory, and keeps `make cache-clean` out while this process and
# its children live.
use_cache() {
	mkdir -p "$cache" || die "cannot make the cache $cache: set VMALAB_CACHE= to a directory of yours"
	[[ -w $cache && -O $cache ]] || die "the cache $cache belongs to another user: set VMALAB_CACHE= to a directory of yours"
	if [[ ! -e $cache/CACHEDIR.TAG ]]; then
		[[ -z $(ls -A "$cache") ]] || die "$cache is neither empty nor a cache of vmalab: set VMALAB_CACHE= to another directory"
		printf 'Signature: 8a477f597d28d172789f06886806bc55\n# The cache of vmalab. make cache-clean empties it.\n' >"$cache/CACHEDIR.TAG"
	fi
	exec {cache_fd}<>"$cache/in-use.lock"
	flock -s -n "$cache_fd" || { say "waiting for make cache-clean"; flock -s "$cache_fd"; }
}

# lock FILE WHAT: takes the lock and holds it until unlock; says for whom it waits.
lock() {
	exec {lock_fd}<>"$1"
	if ! flock -n "$lock_fd"; then
		say "waiting for $2: held by $(cat "$1" 2>/dev/null || echo another run)"
		flock "$lock_fd"
	fi
	printf 'process %s, since %(%H:%M:%S)T, in %s\n' $$ -1 "$checkout" >"$1"
}
unlock() { exec {lock_fd}>&-; }

# remove DIR…: takes directories out of the way first, so that none is ever seen half removed.
remove() {
	local d
	for d; do
		[[ -e $d ]] || continue
		[[ $d == *.tmp ]] || { rm -rf --one-file-system "$d.tmp"; mv -T "$d" "$d.tmp"; d=$d.tmp; }
		chmod -R u+rwX "$d" 2>/dev/null || true
		rm -rf --one-file-system "$d"
	done
}

# cached NAME KEY MAKER: leaves in $made the directory of that name and key; if it is not there,
# runs the function MAKER with a fresh directory, under the lock.
cached() {
	made=$cache/$1-$2
	[[ ! -d $made ]] || return 0
	lock "$cache/$1.lock" "the making of $1"
	if [[ ! -d $made ]]; then
		remove "$cache/$1-"*.tmp
		mkdir "$made.tmp"
		"$3" "$made.tmp"
		sync -f "$made.tmp"
		mv -T "$made.tmp" "$made"
	fi
	unlock
}

# key WORD…: a short hash of the standard input and the words.
key() { { cat; printf '%s\n' "$@"; } | sha256sum | cut -c1-16; }

# kernel_to_use: prints the directory of the kernel that KERNEL picks: a version, `debug`, or the suite
# of another Debian release.
kernel_to_use() {
	case ${KERNEL:-} in
	debug | debug-*) "$here/debug-kernel" ;;
	[a-z]*) "$here/other-kernel" "$KERNEL" ;;
	*) "$here/kernel" ;;
	esac
}

# address SUITE: prints the archive of a suite in the sources of the root, $root, or nothing.
# shellcheck disable=SC2154
address() {
	awk -v s="$1" '$1 == "deb" { for (i = 2; i < NF; i++) if ($(i + 1) == s) { print $i; exit } }' "$root/etc/apt/sources.list"
}

# own_apt DIR: leaves in $apt the options of an apt with state of its own below DIR, whose sources are in
# DIR/sources.list, and in $signed what a line there says of keys, which are those of $root.
# shellcheck disable=SC2034,SC2154
own_apt() {
	lists=$1/apt/lists
	signed="[arch=amd64 signed-by=$root/usr/share/keyrings/debian-archive-keyring.gpg]"
	mkdir -p "$lists/partial" "$1/apt/archives/partial"
	apt=(-q -o Dir::Etc::SourceList="$1/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::State::Lists="$lists" -o Dir::State::status=/dev/null -o Dir::Cache="$1/apt"
		-o Dir::Cache::Archives="$1/apt/archives" -o APT::Sandbox::User=root -o Debug::NoLocking=true
		-o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Update::Error-Mode=any
		-o Acquire::Retries=3 -o Acquire::Languages=none
		-o Acquire::Check-Valid-Until=false)	# an old suite is signed no more
}

# kernel_image DIR: prints the file that QEMU boots. An ELF file starts by its PVH entry.
kernel_image() {
	if [[ -e $1/vmlinux ]]; then echo "$1/vmlinux"; else echo "$1/vmlinuz"; fi
}

# kernel_tools DIR: prints make's argument that names the compilers of the kernel in this directory.
kernel_tools() {
	if grep -q '^CONFIG_CC_IS_CLANG=y' "$1/linux/.config"; then echo LLVM=1; else echo CC=x86_64-linux-gnu-gcc-14; fi
}

# products NAME: prints the directory below build/ for what is built for the kernel that KERNEL picks.
products() {
	case ${KERNEL:-} in
	debug | debug-*) echo "$checkout/build/$1-debug" ;;
	*) echo "$checkout/build/$1" ;;
	esac
}

# step NAME TEXT CMD…: runs the command with its output in build/log/NAME.log, and shows that it
# runs: on a terminal the last line of the log, else a line now and then.
step() {
	local name=$1 text=$2 start=$SECONDS status=0 ticker
	local file=$logs/$name.log
	shift 2
	mkdir -p "$logs"
	if [[ -t 2 ]]; then
		tick "$text" "$file" 1 &
	else
		say "$text ..."
		tick "$text" "$file" 30 &
	fi
	ticker=$!
	# shellcheck disable=SC2064
	trap "kill $ticker 2>/dev/null" EXIT
	# In a subshell that keeps `set -e`: `cmd || status=$?` would switch it off inside.
	set +e
	(set -e; "$@") >"$file" 2>&1 </dev/null
	status=$?
	set -e
	trap - EXIT
	kill "$ticker" 2>/dev/null || true
	wait "$ticker" 2>/dev/null || true
	[[ ! -t 2 ]] || printf '\r\033[K' >&2
	if ((status)); then
		say "$text: FAILED after $((SECONDS - start)) s; the end of $file:"
		tail -n 25 "$file" | sed 's/^/    /' >&2
		exit "$status"
	fi
	say "$text: $((SECONDS - start)) s"
}

# tick TEXT LOG SECONDS: shows how far the log is, as long as the parent lives.
tick() {
	local start=$SECONDS last
	# hold no lock and no pipe of the parent
	exec >/dev/null
	# a pipe to which nobody writes: reading it is a sleep that ends with this process
	exec 0<> <(:)
	[[ -z ${lock_fd:-} ]] || exec {lock_fd}>&-
	[[ -z ${cache_fd:-} ]] || exec {cache_fd}>&-
	while read -r -t "$3" _ || kill -0 $$ 2>/dev/null; do
		last=$(tail -c 300 "$2" 2>/dev/null | tr '\r' '\n' | grep -v '^[[:space:]]*$' | tail -n 1 | tr -cd '[:print:]' || true)
		if (($3 == 1)); then
			printf '\r\033[K%.*s' $(($(tput cols 2>/dev/null || echo 80) - 1)) "$1 ... $((SECONDS - start)) s  $last" >&2
		else
			say "    $((SECONDS - start)) s: ${last:0:90}"
		fi
	done
}

# empty_cache: removes all that was made, when nobody uses it any more.
empty_cache() {
	[[ -e $cache/CACHEDIR.TAG ]] || return 0
	exec {cache_fd}<>"$cache/in-use.lock"
	flock -n "$cache_fd" || { say "waiting for those who use the cache"; flock "$cache_fd"; }
	find "$cache" -mindepth 1 -maxdepth 1 -type d | while read -r dir; do
		say "removing $dir"
		remove "$dir"
	done
}
