/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "buffer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <wlr/interfaces/wlr_buffer.h>
#include <wlr/util/log.h>

/* How long an access by the CPU waits for GPUs that work on a buffer. */
#define PATIENCE_NS (1000 * 1000 * 1000LL)

struct buffer {
	struct wlr_buffer base;
	struct primeshare_buffer *buffer;
	struct primeshare_device *device;
	struct primeshare_buffer_info info;
	/* NULL until the CPU looks at the buffer. */
	struct primeshare_mapping *mapping;
};

static const struct wlr_buffer_impl impl;

static struct buffer *buffer_of(struct wlr_buffer *wlr_buffer) {
	struct buffer *buffer = wl_container_of(wlr_buffer, buffer, base);
	return buffer;
}

static void destroy(struct wlr_buffer *wlr_buffer) {
	struct buffer *buffer = buffer_of(wlr_buffer);
	primeshare_mapping_destroy(buffer->mapping);
	primeshare_buffer_unref(buffer->buffer);
	primeshare_device_unref(buffer->device);
	free(buffer);
}

static bool get_dmabuf(struct wlr_buffer *wlr_buffer, struct wlr_dmabuf_attributes *attributes) {
	struct buffer *buffer = buffer_of(wlr_buffer);
	const struct primeshare_buffer_info *info = &buffer->info;
	*attributes = (struct wlr_dmabuf_attributes){
		.width = wlr_buffer->width,
		.height = wlr_buffer->height,
		.format = info->format,
		.modifier = info->modifier,
		.n_planes = info->plane_count,
	};
	for (uint32_t i = 0; i < info->plane_count; i++) {
		attributes->fd[i] = info->planes[i].fd;
		attributes->offset[i] = info->planes[i].offset;
		attributes->stride[i] = info->planes[i].stride;
	}
	return true;
}

static bool begin_data_ptr_access(struct wlr_buffer *wlr_buffer, uint32_t flags, void **data, uint32_t *format,
		size_t *stride) {
	struct buffer *buffer = buffer_of(wlr_buffer);
	if (buffer->mapping == NULL && primeshare_mapping_create(buffer->buffer, false, &buffer->mapping) != 0) {
		wlr_log(WLR_ERROR, "%s", primeshare_last_error_message());
		return false;
	}
	uint32_t access = 0;
	if (flags & WLR_BUFFER_DATA_PTR_ACCESS_READ)
		access |= PRIMESHARE_ACCESS_READ;
	if (flags & WLR_BUFFER_DATA_PTR_ACCESS_WRITE)
		access |= PRIMESHARE_ACCESS_WRITE;
	struct primeshare_mapped_plane plane;
	if (primeshare_mapping_begin_wait(buffer->mapping, access, PATIENCE_NS) != 0 ||
			primeshare_mapping_get_plane(buffer->mapping, 0, &plane) != 0) {
		wlr_log(WLR_ERROR, "%s", primeshare_last_error_message());
		return false;
	}
	*data = plane.data;
	*format = buffer->info.format;
	*stride = plane.stride;
	return true;
}

static void end_data_ptr_access(struct wlr_buffer *wlr_buffer) {
	if (primeshare_mapping_end(buffer_of(wlr_buffer)->mapping) != 0)
		wlr_log(WLR_ERROR, "%s", primeshare_last_error_message());
}

static const struct wlr_buffer_impl impl = {
	.destroy = destroy,
	.get_dmabuf = get_dmabuf,
	.begin_data_ptr_access = begin_data_ptr_access,
	.end_data_ptr_access = end_data_ptr_access,
};

/* Says which dma-buf it is, by its inode number. */
static void tell(const struct buffer *buffer) {
	struct primeshare_buffer_id id;
	if (primeshare_buffer_get_id(buffer->buffer, &id) == 0)
		wlr_log(WLR_DEBUG, "primeshare: buffer %" PRIu64 ", %ux%u", id.inode, buffer->info.width,
			buffer->info.height);
}

struct wlr_buffer *buffer_wrap(struct primeshare_buffer *library_buffer, const struct primeshare_device *device) {
	struct buffer *buffer = calloc(1, sizeof(*buffer));
	if (buffer == NULL) {
		primeshare_buffer_unref(library_buffer);
		return NULL;
	}
	buffer->buffer = library_buffer;
	buffer->info.size = sizeof(buffer->info);
	if (primeshare_buffer_get_info(library_buffer, &buffer->info) != 0) {
		primeshare_buffer_unref(library_buffer);
		free(buffer);
		return NULL;
	}
	buffer->device = primeshare_device_ref(device);
	tell(buffer);
	wlr_buffer_init(&buffer->base, &impl, buffer->info.width, buffer->info.height);
	return &buffer->base;
}

const struct primeshare_buffer *buffer_unwrap(const struct wlr_buffer *wlr_buffer,
		const struct primeshare_device **device) {
	if (wlr_buffer->impl != &impl)
		return NULL;
	const struct buffer *buffer = wl_container_of(wlr_buffer, buffer, base);
	*device = buffer->device;
	return buffer->buffer;
}
