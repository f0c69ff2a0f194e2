# SPDX-License-Identifier: MIT OR GPL-2.0-only
#
# The reports of all shards as one: jq -s -f merge.jq report-*.json
# Figures are added up, but for rates, which are of machines side by side and add up as well, and for
# what is the same of all.
{
	target: "campaign",
	kernel: (map(.kernel) | unique | join(", ")),
	shards: length,
	passed: (map(.passed) | add),
	failed: (map(.failed) | add),
	skipped: (map(.skipped) | add),
	rows: (
		map(.rows[]?)
		| map(select(.name | IN("seed", "first batch", "generator") or startswith("all areas") or startswith("counters looked") | not))
		| group_by([.name, .subject])
		| map(.[0] + {value: (if (.[0].name | IN("most areas", "distinct outcomes", "edges of mm/vma.c", "all edges of mm/vma.c")) then map(.value) | max else map(.value) | add end)})
	),
	failures: map(.failures[]?),
	known: (map(.known[]?) | unique),
	findings: map(.finding // empty)
}
