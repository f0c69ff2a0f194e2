# SPDX-License-Identifier: GPL-2.0-only
#
# Prints functions, system calls (sys_brk), macros, structures and enumerations of a C file in the kernel's style, in the order in which they stand there:
#
#   awk -f extract.awk -v names="do_mmap LEGACY_MAP_MASK" mm/mmap.c
#
# Of what is there twice, for one configuration and another, the first is taken. `a|b` is what has one name in some kernels
# and the other in others, `a?` what need not be there.
#
# Fails if one of them is not there.

BEGIN {
	count = split(names, list, " ")
	for (i = 1; i <= count; i++) {
		n = split(list[i], either, /[|?]/)
		for (j = 1; j <= n; j++) wanted[either[j]] = 1
	}
}

# The name that a line at the left margin defines, if it is wanted.
function defines(line,    n) {
	if (line ~ /^#define /) {
		n = line
		sub(/^#define /, "", n)
		sub(/[^A-Za-z0-9_].*/, "", n)
		return (n in wanted) ? n : ""
	}
	if (line ~ /^(struct|enum) [A-Za-z0-9_]+ {$/) {
		split(line, words, " ")
		return (words[2] in wanted) ? words[2] : ""
	}
	if (line ~ /^SYSCALL_DEFINE[0-9]\(/) {
		n = line
		sub(/^SYSCALL_DEFINE[0-9]\(/, "sys_", n)
		sub(/[^A-Za-z0-9_].*/, "", n)
		return (n in wanted) ? n : ""
	}
	if (line !~ /^[A-Za-z_].*\(/) return ""
	n = line
	sub(/\(.*/, "", n)
	sub(/.*[ *\t]/, "", n)
	return (n in wanted) ? n : ""
}

state == "macro" {
	print
	if ($0 !~ /\\$/) state = ""
	next
}

state == "body" {
	print
	if ($0 ~ /^}/) state = ""
	next
}

# Between the name and the brace; a semicolon says that it was a declaration.
state == "head" {
	held = held "\n" $0
	if ($0 ~ /;$/) { state = ""; next }
	if ($0 ~ /^{/) { print held; found[name] = 1; state = "body" }
	next
}

{
	name = defines($0)
	if (name in found) name = ""
	if (name != "" && $0 ~ /^#/) {
		printf "#line %d \"%s\"\n%s\n", FNR, FILENAME, $0
		found[name] = 1
		if ($0 ~ /\\$/) state = "macro"
	} else if (name != "" && $0 ~ / {$/ && $0 !~ /\(/) {
		printf "#line %d \"%s\"\n%s\n", FNR, FILENAME, $0
		found[name] = 1
		state = "body"
	} else if (name != "" && $0 !~ /;$/) {
		# The type may stand on a line of its own.
		type = last ~ /^[A-Za-z_][A-Za-z0-9_ *]*$/
		held = sprintf("#line %d \"%s\"\n%s%s", FNR - type, FILENAME, type ? last "\n" : "", $0)
		state = "head"
	}
	last = $0
}

END {
	for (i = 1; i <= count; i++) {
		there = list[i] ~ /\?$/
		n = split(list[i], either, "|")
		for (j = 1; j <= n; j++) if (either[j] in found) there = 1
		if (there) continue
		gsub(/\|/, " or ", list[i])
		printf "%s: no %s\n", FILENAME, list[i] >"/dev/stderr"
		status = 1
	}
	exit status
}
