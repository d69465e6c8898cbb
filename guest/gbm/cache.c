// A driver with a cache of buffer objects, as panfrost, etnaviv and asahi have one: what is destroyed is kept, and made
// the next buffer of the same size, unless the driver was told of an export. gbm_bo_get_fd and gbm_bo_get_fd_for_plane
// tell it; gbm_bo_get_handle does not.
//
// With PRIMESHARE_GBM_CACHE=all it keeps what was exported, too, which no driver may do.
//
// Preloaded by tests, over Mesa's own gbm.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct gbm_bo;
struct gbm_device;

#define NEXT(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))

// What a buffer was asked for with: one may stand for another of the same recipe. Compared as bytes, so without padding.
struct recipe {
	struct gbm_device *device;
	uint32_t width, height, format, flags;
	uint64_t modifiers;
};

static struct entry {
	struct gbm_bo *bo;
	struct recipe recipe;
	int is_exported, is_free;
} entries[64];

static struct entry *find(struct gbm_bo *bo)
{
	for (unsigned int i = 0; i < 64; i++)
		if (entries[i].bo == bo)
			return &entries[i];
	return NULL;
}

static struct gbm_bo *take(const struct recipe *recipe)
{
	for (unsigned int i = 0; i < 64; i++) {
		struct entry *entry = &entries[i];
		if (entry->is_free && memcmp(&entry->recipe, recipe, sizeof *recipe) == 0) {
			entry->is_free = 0;
			return entry->bo;
		}
	}
	return NULL;
}

static struct gbm_bo *remember(struct gbm_bo *bo, const struct recipe *recipe)
{
	struct entry *entry = find(NULL);
	if (bo && entry)
		*entry = (struct entry){ .bo = bo, .recipe = *recipe };
	return bo;
}

struct gbm_bo *gbm_bo_create(struct gbm_device *device, uint32_t width, uint32_t height, uint32_t format,
			     uint32_t flags)
{
	struct recipe recipe = { device, width, height, format, flags, 0 };
	struct gbm_bo *bo = take(&recipe);
	return bo ? bo : remember(NEXT(gbm_bo_create)(device, width, height, format, flags), &recipe);
}

struct gbm_bo *gbm_bo_create_with_modifiers2(struct gbm_device *device, uint32_t width, uint32_t height,
					     uint32_t format, const uint64_t *modifiers,
					     const unsigned int count, uint32_t flags)
{
	struct recipe recipe = { device, width, height, format, flags, count };
	struct gbm_bo *bo = take(&recipe);
	if (bo)
		return bo;
	bo = NEXT(gbm_bo_create_with_modifiers2)(device, width, height, format, modifiers, count, flags);
	return remember(bo, &recipe);
}

static void tell(struct gbm_bo *bo)
{
	struct entry *entry = find(bo);
	if (entry)
		entry->is_exported = 1;
}

int gbm_bo_get_fd(struct gbm_bo *bo)
{
	tell(bo);
	return NEXT(gbm_bo_get_fd)(bo);
}

int gbm_bo_get_fd_for_plane(struct gbm_bo *bo, int plane)
{
	tell(bo);
	return NEXT(gbm_bo_get_fd_for_plane)(bo, plane);
}

static int keeps_all(void)
{
	const char *keep = getenv("PRIMESHARE_GBM_CACHE");
	return keep && strcmp(keep, "all") == 0;
}

void gbm_bo_destroy(struct gbm_bo *bo)
{
	struct entry *entry = find(bo);
	if (entry && (!entry->is_exported || keeps_all())) {
		entry->is_free = 1;
		return;
	}
	if (entry)
		*entry = (struct entry){ 0 };
	NEXT(gbm_bo_destroy)(bo);
}

void gbm_device_destroy(struct gbm_device *device)
{
	for (unsigned int i = 0; i < 64; i++) {
		struct entry *entry = &entries[i];
		if (entry->is_free && entry->recipe.device == device) {
			NEXT(gbm_bo_destroy)(entry->bo);
			*entry = (struct entry){ 0 };
		}
	}
	NEXT(gbm_device_destroy)(device);
}
