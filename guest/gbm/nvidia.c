// What NVIDIA's gbm does with LINEAR: it refuses LINEAR together with rendering, makes LINEAR buffers if that is the
// modifier asked for, and block-linear ones if no modifier is asked for, whatever the flags say.
//
// With PRIMESHARE_GBM_MODIFIERS=none it knows no way to ask for modifiers.
//
// Preloaded by tests, over Mesa's own gbm, which only makes LINEAR buffers: the block-linear ones are so by name.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct gbm_bo;
struct gbm_device;

#define NEXT(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))

// gbm.h's GBM_BO_USE_*.
enum { RENDERING = 1 << 2, LINEAR = 1 << 4 };
// drm_fourcc.h's DRM_FORMAT_MOD_LINEAR, and one that DRM_FORMAT_MOD_NVIDIA_BLOCK_LINEAR_2D makes.
static const uint64_t linear = 0;
static const uint64_t block_linear = 0x0300000000606014;

// Buffers that were made without a modifier.
static struct gbm_bo *tiled[64];

static struct gbm_bo **find(struct gbm_bo *bo)
{
	for (unsigned int i = 0; i < 64; i++)
		if (tiled[i] == bo)
			return &tiled[i];
	return NULL;
}

static struct gbm_bo *refuse(int reason)
{
	errno = reason;
	return NULL;
}

struct gbm_bo *gbm_bo_create(struct gbm_device *device, uint32_t width, uint32_t height, uint32_t format,
			     uint32_t flags)
{
	if (flags & LINEAR && flags & RENDERING)
		return refuse(EINVAL);
	struct gbm_bo **slot = find(NULL);
	struct gbm_bo *bo = slot ? NEXT(gbm_bo_create)(device, width, height, format, flags) : NULL;
	if (bo)
		*slot = bo;
	return bo;
}

struct gbm_bo *gbm_bo_create_with_modifiers2(struct gbm_device *device, uint32_t width, uint32_t height,
					     uint32_t format, const uint64_t *modifiers,
					     const unsigned int count, uint32_t flags)
{
	const char *known = getenv("PRIMESHARE_GBM_MODIFIERS");
	if (known && strcmp(known, "none") == 0)
		return refuse(ENOSYS);
	for (unsigned int i = 0; i < count; i++)
		if (modifiers[i] == linear && flags & RENDERING)
			return refuse(EINVAL);
	return NEXT(gbm_bo_create_with_modifiers2)(device, width, height, format, modifiers, count, flags);
}

uint64_t gbm_bo_get_modifier(struct gbm_bo *bo)
{
	return find(bo) ? block_linear : NEXT(gbm_bo_get_modifier)(bo);
}

void gbm_bo_destroy(struct gbm_bo *bo)
{
	struct gbm_bo **slot = find(bo);
	if (slot)
		*slot = NULL;
	NEXT(gbm_bo_destroy)(bo);
}
