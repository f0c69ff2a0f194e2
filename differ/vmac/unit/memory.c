// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory: caches that count, reuse what was freed last, fail when told to, and notice a write behind an object and a
 * second free; sheaves; RCU for one thread.
 *
 * All ours, in the place of mm/slub.c and of the allocator of the kernel's tools.
 */

struct vmac_cache {
	struct kmem_cache base;
	size_t room;			/* bytes between two objects */
	void *free;			/* a list through the objects' ends */
	long live;
	const char *name;
};

static struct vmac_cache vmac_caches[8];
static unsigned int vmac_n_caches;
static struct kmem_cache *vmac_maple_cache, *vmac_area_cache;

/* From the C library, whose lock must not be left behind. */
static void *vmac_malloc(size_t alignment, size_t size)
{
	void *memory;

	vmac_locked = 1;
	if (posix_memalign(&memory, alignment, size))
		memory = NULL;
	vmac_locked = 0;
	return memory;
}

static void vmac_unmalloc(void *memory)
{
	vmac_locked = 1;
	free(memory);
	vmac_locked = 0;
}

#ifdef VMAC_SANITIZE

static void vmac_forget(void)
{
	/* What a broken operation left behind is lost. */
}
#else
/* Bytes are handed out in order, and all come back at once, when an address space is forgotten. */
#define VMAC_BLOCK (1UL << 20)
/* More of them than this takes nobody but a loop without end. */
#define VMAC_BLOCKS 512

struct vmac_block {
	struct vmac_block *next;
	char bytes[VMAC_BLOCK];
};

static struct vmac_block *vmac_blocks, *vmac_block;
static size_t vmac_used;
static unsigned int vmac_n_blocks;

static void *vmac_chunk(struct vmac_cache *cache)
{
	if (!vmac_block || vmac_used + cache->room > VMAC_BLOCK) {
		struct vmac_block *next = vmac_block ? vmac_block->next : vmac_blocks;

		if (!next) {
			BUG_ON(vmac_n_blocks >= VMAC_BLOCKS);
			next = vmac_malloc(4096, (sizeof(*next) + 4095) & ~4095UL);
			BUG_ON(!next);
			vmac_n_blocks++;
			next->next = NULL;
			if (vmac_block)
				vmac_block->next = next;
			else
				vmac_blocks = next;
		}
		vmac_block = next;
		/* Objects are aligned to their size, rounded up; so are maple nodes to 256 bytes. */
		vmac_used = (-(uintptr_t)next->bytes) & 255;
	}
	void *chunk = vmac_block->bytes + vmac_used;

	vmac_used += cache->room;
	return chunk;
}

static void vmac_forget(void)
{
	vmac_block = NULL;
}
#endif

static void **vmac_link(struct vmac_cache *cache, void *object)
{
	return (void **)((char *)object + cache->room - sizeof(void *));
}

#if defined(VMAC_BARE) || defined(VMAC_SANITIZE)
static void vmac_guard(struct vmac_cache *cache, void *object)
{
}

static void vmac_check(struct vmac_cache *cache, void *object)
{
}
#else
/* What is right behind an object as long as it is in use, and while it is free. */
#define VMAC_IN_USE 0x5555666677778888UL
#define VMAC_FREE 0x8888777766665555UL

static uint64_t *vmac_behind(struct vmac_cache *cache, void *object)
{
	return (uint64_t *)((char *)object + cache->base.size);
}

static void vmac_guard(struct vmac_cache *cache, void *object)
{
	*vmac_behind(cache, object) = VMAC_IN_USE;
}

/* Nobody has written beyond it, and it goes for the first time. */
static void vmac_check(struct vmac_cache *cache, void *object)
{
	uint64_t *behind = vmac_behind(cache, object);
	char what[96];

	if (unlikely(*behind != VMAC_IN_USE)) {
		snprintf(what, sizeof(what), *behind == VMAC_FREE ? "a %s is freed that is free" :
			 "something was written behind a %s", cache->name);
		vmac_bug(what, __FILE__, __LINE__);
	}
	*behind = VMAC_FREE;
}
#endif

static bool vmac_lacks(struct kmem_cache *cache, gfp_t gfp)
{
	if (gfp & __GFP_NOFAIL)
		return false;
	if (vmac_starved && (cache == anon_vma_cachep || cache == anon_vma_chain_cachep)) {
		vmac_starved = false;
		return true;
	}
	return vmac_fails(VMAC_FAIL_ANY) || (cache == vmac_area_cache && vmac_fails(VMAC_FAIL_AREA));
}

static void *vmac_alloc(struct kmem_cache *base, gfp_t gfp)
{
	struct vmac_cache *cache = (struct vmac_cache *)base;
	void *object = cache->free;

	if (object) {
		cache->free = *vmac_link(cache, object);
	} else {
#ifdef VMAC_SANITIZE
		object = vmac_malloc(256, base->size);
#else
		object = vmac_chunk(cache);
#endif
		if (base->ctor)
			base->ctor(object);
	}
	vmac_guard(cache, object);
	cache->live++;
	if (!base->ctor && gfp & __GFP_ZERO)
		memset(object, 0, base->size);
	return object;
}

void *kmem_cache_alloc_lru(struct kmem_cache *base, struct list_lru *lru, int gfp)
{
	return vmac_lacks(base, gfp) ? NULL : vmac_alloc(base, gfp);
}

void kmem_cache_free(struct kmem_cache *base, void *object)
{
	struct vmac_cache *cache = (struct vmac_cache *)base;

	vmac_check(cache, object);
	cache->live--;
#ifdef VMAC_SANITIZE
	vmac_unmalloc(object);
#else
#ifndef VMAC_BARE
	/* Who still reads it is to find nonsense. A constructed object keeps what its constructor made. */
	if (!base->ctor)
		memset(object, 0x6b, min_t(size_t, base->size, 64));
#endif
	if (base == anon_vma_cachep)
		((struct anon_vma *)object)->number = 0;
	*vmac_link(cache, object) = cache->free;
	cache->free = object;
#endif
}

struct kmem_cache *__kmem_cache_create_args(const char *name, unsigned int size,
		struct kmem_cache_args *args, unsigned int flags)
{
	struct vmac_cache *cache = &vmac_caches[vmac_n_caches++];

	BUG_ON(vmac_n_caches > ARRAY_SIZE(vmac_caches));
	memset(cache, 0, sizeof(*cache));
	cache->base.size = size;
	cache->base.ctor = args->ctor;
	cache->name = name;
	if (!strcmp(name, "maple_node"))
		vmac_maple_cache = &cache->base;
	if (!strcmp(name, "vm_area_struct"))
		vmac_area_cache = &cache->base;
	/* A maple node is aligned to 256 bytes, with no room to spare: its link lies in the next 256, and what guards it. */
	cache->room = (size + sizeof(uint64_t) + sizeof(void *) + 255) & ~255UL;
#ifdef VMAC_BARE
	/* As the kernel's allocator does where there is no constructor: the link lies in what is free. */
	if (!args->ctor)
		cache->room = (size + 255) & ~255UL;
#endif
	return &cache->base;
}

void kmem_cache_free_bulk(struct kmem_cache *cache, size_t size, void **list)
{
	for (size_t i = 0; i < size; i++)
		kmem_cache_free(cache, list[i]);
}

/* Sheaves: a few, that are used again. */
#define VMAC_SHEAF 64
static struct slab_sheaf *vmac_sheaf;

struct slab_sheaf *kmem_cache_prefill_sheaf(struct kmem_cache *cache, gfp_t gfp, unsigned int size)
{
	struct slab_sheaf *sheaf = vmac_sheaf;

	if (vmac_lacks(cache, gfp))
		return NULL;
	BUG_ON(size > VMAC_SHEAF);
	if (sheaf)
		vmac_sheaf = NULL;
	else
		sheaf = vmac_malloc(64, (sizeof(*sheaf) + VMAC_SHEAF * sizeof(void *) + 63) & ~63UL);
	if (!sheaf)
		return NULL;
	sheaf->cache = cache;
	sheaf->capacity = VMAC_SHEAF;
	for (sheaf->size = 0; sheaf->size < size; sheaf->size++)
		sheaf->objects[sheaf->size] = vmac_alloc(cache, gfp);
	return sheaf;
}

int kmem_cache_refill_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf **sheaf, unsigned int size)
{
	if ((*sheaf)->size >= size)
		return 0;
	BUG_ON(size > VMAC_SHEAF);
	if (vmac_lacks(cache, gfp))
		return -ENOMEM;
	for (; (*sheaf)->size < size; (*sheaf)->size++)
		(*sheaf)->objects[(*sheaf)->size] = vmac_alloc(cache, gfp);
	return 0;
}

void kmem_cache_return_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf *sheaf)
{
	kmem_cache_free_bulk(cache, sheaf->size, sheaf->objects);
	if (vmac_sheaf)
		vmac_unmalloc(sheaf);
	else
		vmac_sheaf = sheaf;
}

void *kmem_cache_alloc_from_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf *sheaf)
{
	BUG_ON(!sheaf->size);
	return sheaf->objects[--sheaf->size];
}

/* The maple tree's single nodes come from the cache, and go by kfree. */
void kfree(void *object)
{
	if (object)
		kmem_cache_free(vmac_maple_cache, object);
}

#ifdef VMAC_SANITIZE
/* The maple tree's debugging code would steer the tools' allocator by these. Nobody calls it. */
void kmem_cache_set_non_kernel(struct kmem_cache *cache, unsigned int value) { }
void kmem_cache_set_callback(struct kmem_cache *cache, void (*callback)(void *)) { }
void kmem_cache_set_private(struct kmem_cache *cache, void *private) { }
void kmem_cache_zero_nr_tallocated(struct kmem_cache *cache) { }
void kmem_cache_shrink(struct kmem_cache *cache) { }
unsigned long kmem_cache_get_alloc(struct kmem_cache *cache) { return 0; }
unsigned int kmem_cache_nr_tallocated(struct kmem_cache *cache) { return 0; }
unsigned int kmem_cache_nr_allocated(struct kmem_cache *cache) { return 0; }
#endif

static struct rcu_head *vmac_rcu;

void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head))
{
	head->func = func;
	head->next = vmac_rcu;
	vmac_rcu = head;
}

static void vmac_rcu_drain(void)
{
	while (vmac_rcu) {
		struct rcu_head *head = vmac_rcu;

		vmac_rcu = head->next;
		head->func(head);
	}
}

void maple_rcu_cb(struct rcu_head *head)
{
	kfree(container_of(head, struct maple_node, rcu));
}
