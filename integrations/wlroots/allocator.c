/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "primeshare-wlroots.h"

#include <primeshare-gbm.h>
#include <stdlib.h>
#include <wlr/backend.h>
#include <wlr/interfaces/wlr_buffer.h>
#include <wlr/render/allocator.h>
#include <wlr/render/drm_format_set.h>
#include <wlr/render/wlr_renderer.h>
#include <wlr/util/log.h>

#include "buffer.h"
#include "export.h"

struct allocator {
	struct wlr_allocator base;
	struct primeshare_device *device;
	struct primeshare_allocator *allocator;
	uint32_t usage;
};

static struct wlr_buffer *create_buffer(struct wlr_allocator *wlr_allocator, int width, int height,
		const struct wlr_drm_format *format) {
	struct allocator *allocator = wl_container_of(wlr_allocator, allocator, base);
	struct primeshare_request request = {
		.size = sizeof(request),
		.width = width,
		.height = height,
		.format = format->format,
		.usage = allocator->usage,
		.modifiers = format->modifiers,
		.modifier_count = format->len,
	};
	struct primeshare_buffer *buffer;
	if (primeshare_allocator_allocate(allocator->allocator, &request, &buffer) != 0) {
		wlr_log(WLR_ERROR, "%s", primeshare_last_error_message());
		return NULL;
	}
	return buffer_wrap(buffer, allocator->device);
}

static void destroy(struct wlr_allocator *wlr_allocator) {
	struct allocator *allocator = wl_container_of(wlr_allocator, allocator, base);
	primeshare_allocator_unref(allocator->allocator);
	primeshare_device_unref(allocator->device);
	free(allocator);
}

static const struct wlr_allocator_interface impl = {
	.create_buffer = create_buffer,
	.destroy = destroy,
};

EXPORT struct wlr_allocator *primeshare_wlr_allocator_create(struct wlr_backend *backend, struct wlr_renderer *renderer) {
	int fd = wlr_backend_get_drm_fd(backend);
	struct allocator *allocator = calloc(1, sizeof(*allocator));
	if (fd < 0 || allocator == NULL) {
		free(allocator);
		return NULL;
	}
	/* wlroots works on its own fd: the library gets another file description. */
	int error = primeshare_device_private_copy_of(fd, &allocator->device);
	bool is_mapped = renderer->render_buffer_caps & WLR_BUFFER_CAP_DATA_PTR;
	uint32_t caps = WLR_BUFFER_CAP_DMABUF;
	allocator->usage = PRIMESHARE_USAGE_SCANOUT | PRIMESHARE_USAGE_RENDER;
	if (error == 0 && !is_mapped)
		error = primeshare_allocator_create_gbm(allocator->device, &allocator->allocator);
	if (error == 0 && is_mapped) {
		error = primeshare_allocator_create_dumb(allocator->device, &allocator->allocator);
		allocator->usage = PRIMESHARE_USAGE_SCANOUT | PRIMESHARE_USAGE_MAP;
		caps |= WLR_BUFFER_CAP_DATA_PTR;
	}
	if (error != 0) {
		wlr_log(WLR_ERROR, "%s", primeshare_last_error_message());
		primeshare_device_unref(allocator->device);
		free(allocator);
		return NULL;
	}
	wlr_allocator_init(&allocator->base, &impl, caps);
	wlr_log(WLR_INFO, "primeshare %s allocates: %s", primeshare_version(),
		primeshare_allocator_name(allocator->allocator));
	return &allocator->base;
}
