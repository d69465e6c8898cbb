// A backend that makes buffers of two planes and does not export every plane: PRIMESHARE_GBM_PLANES is how many of
// them it exports, 0 or 1. It gives no reason for the others, as Mesa does at times. Both planes are the same memory.
//
// Preloaded by tests, over Mesa's own gbm.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

struct gbm_bo;

// gbm.h's.
union gbm_bo_handle {
	void *pointer;
	int64_t s64;
};

#define NEXT(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))

int gbm_bo_get_plane_count(struct gbm_bo *bo)
{
	(void)bo;
	return 2;
}

union gbm_bo_handle gbm_bo_get_handle_for_plane(struct gbm_bo *bo, int plane)
{
	(void)plane;
	return NEXT(gbm_bo_get_handle_for_plane)(bo, 0);
}

uint32_t gbm_bo_get_stride_for_plane(struct gbm_bo *bo, int plane)
{
	(void)plane;
	return NEXT(gbm_bo_get_stride_for_plane)(bo, 0);
}

uint32_t gbm_bo_get_offset(struct gbm_bo *bo, int plane)
{
	(void)plane;
	return NEXT(gbm_bo_get_offset)(bo, 0);
}

int gbm_bo_get_fd_for_plane(struct gbm_bo *bo, int plane)
{
	const char *exported = getenv("PRIMESHARE_GBM_PLANES");
	if (!exported || plane >= atoi(exported)) {
		errno = 0;
		return -1;
	}
	return NEXT(gbm_bo_get_fd_for_plane)(bo, plane);
}
