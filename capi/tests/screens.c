/* Framebuffers, and frames on a screen. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

/* Of <drm/drm_mode.h>, which need not be installed. */
struct get_fb2 {
	uint32_t fb_id, width, height, pixel_format, flags, handles[4], pitches[4], offsets[4];
	uint64_t modifier[4];
};
struct prime_handle {
	uint32_t handle, flags;
	int32_t fd;
};
struct get_crtc {
	uint64_t set_connectors_ptr;
	uint32_t count_connectors, crtc_id, fb_id, x, y, gamma_size, mode_valid;
	char mode[68];
};
#define GET_CRTC _IOWR('d', 0xA1, struct get_crtc)
#define GET_FB2 _IOWR('d', 0xCE, struct get_fb2)
#define PRIME_HANDLE_TO_FD _IOWR('d', 0x2d, struct prime_handle)
#define SET_MASTER _IO('d', 0x1e)
#define DROP_MASTER _IO('d', 0x1f)
#define GEM_CLOSE _IOW('d', 0x09, uint32_t[2])

static ino_t dma_buf_of(int fd, uint32_t framebuffer) {
	struct get_fb2 known = {.fb_id = framebuffer};
	CHECK(ioctl(fd, GET_FB2, &known) == 0);
	struct prime_handle exported = {.handle = known.handles[0], .flags = O_CLOEXEC};
	CHECK(ioctl(fd, PRIME_HANDLE_TO_FD, &exported) == 0);
	struct stat stat_of;
	CHECK(fstat(exported.fd, &stat_of) == 0);
	close(exported.fd);
	uint32_t closing[2] = {known.handles[0]};
	CHECK(ioctl(fd, GEM_CLOSE, closing) == 0);
	return stat_of.st_ino;
}

static int master_of(const struct primeshare_device *device) {
	int fd = open(primeshare_device_path(device), O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

static void a_buffer_has_one_framebuffer(void) {
	struct primeshare_device *vkms = device_of("vkms", 0), *vgem = device_of("vgem", 0), *private_device;
	struct primeshare_framebuffers *framebuffers;
	struct primeshare_framebuffer *framebuffer, *again;
	struct primeshare_buffer *buffer = dumb(vgem, 640, 480);
	struct primeshare_buffer_id id;
	int fd = master_of(vkms);
	OK(primeshare_device_private_copy_of(fd, &private_device));
	OK(primeshare_framebuffers_create(private_device, &framebuffers));
	OK(primeshare_framebuffers_get(framebuffers, buffer, 0, &framebuffer));
	OK(primeshare_framebuffers_get(framebuffers, buffer, 0, &again));
	CHECK(framebuffer == again && primeshare_framebuffer_id(framebuffer) != 0);
	OK(primeshare_buffer_get_id(buffer, &id));
	CHECK(dma_buf_of(fd, primeshare_framebuffer_id(framebuffer)) == id.inode);
	primeshare_framebuffer_unref(again);
	OK(primeshare_framebuffers_get(framebuffers, buffer, ARGB8888, &again));
	CHECK(framebuffer != again);
	primeshare_framebuffer_unref(again);
	CHECK(primeshare_framebuffers_get(framebuffers, buffer, NV12, &again) < 0);
	primeshare_framebuffer_unref(primeshare_framebuffer_ref(framebuffer));
	primeshare_framebuffer_unref(framebuffer);
	primeshare_framebuffers_unref(primeshare_framebuffers_ref(framebuffers));
	primeshare_framebuffers_unref(framebuffers);
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(private_device);
	primeshare_device_unref(vkms);
	primeshare_device_unref(vgem);
	close(fd);
}

struct show {
	struct primeshare_device *vgem, *vkms;
	struct primeshare_card *card;
	struct primeshare_presenter *presenter;
	uint32_t width, height, crtc;
	int fd;
};

static struct show show_begin(void) {
	struct show show = {.vgem = device_of("vgem", 0), .vkms = device_of("vkms", 0)};
	struct primeshare_blitter_options cpu = {.size = sizeof(cpu), .gpu = PRIMESHARE_GPU_NONE};
	struct primeshare_presenter_options options = {.size = sizeof(options), .blitter = &cpu};
	show.fd = master_of(show.vkms);
	OK(primeshare_card_create(show.fd, &show.card));
	OK(primeshare_presenter_create(show.card, show.vgem, &options, &show.presenter));
	OK(primeshare_presenter_get_mode(show.presenter, &show.width, &show.height, &show.crtc));
	CHECK(show.width > 0 && show.height > 0 && show.crtc > 0);
	return show;
}

/* The loop of a program: until there is an event. */
static struct primeshare_present_event next_event(struct show *show) {
	struct primeshare_present_event event;
	for (;;) {
		struct primeshare_page_flip flips[PRIMESHARE_MAX_PAGE_FLIPS];
		int count = primeshare_card_read_page_flips(show->card, flips);
		CHECK(count >= 0);
		for (int i = 0; i < count; i++)
			CHECK(primeshare_presenter_page_flip(show->presenter, &flips[i]) == 1);
		count = primeshare_presenter_dispatch(show->presenter, &event, 1);
		CHECK(count >= 0);
		if (count == 1)
			return event;
		struct pollfd fds[] = {{.fd = show->fd, .events = POLLIN},
			{.fd = primeshare_presenter_fd(show->presenter), .events = POLLIN}};
		CHECK(poll(fds, 2, 60000) > 0);
	}
}

static void show_end(struct show *show) {
	primeshare_presenter_destroy_wait(show->presenter);
	primeshare_card_unref(primeshare_card_ref(show->card));
	primeshare_card_unref(show->card);
	primeshare_device_unref(show->vgem);
	primeshare_device_unref(show->vkms);
	close(show->fd);
}

static uint32_t on_screen(const struct show *show) {
	struct get_crtc crtc = {.crtc_id = show->crtc};
	CHECK(ioctl(show->fd, GET_CRTC, &crtc) == 0);
	return crtc.fb_id;
}

static void frames_are_shown_directly_or_copied(void) {
	struct show show = show_begin();
	struct primeshare_buffer *full = dumb(show.vgem, show.width, show.height);
	struct primeshare_buffer *half = dumb(show.vgem, show.width / 2, show.height / 2);
	struct primeshare_buffer_id id;
	struct primeshare_present_event event;
	uint64_t frame = 0, before = 0;
	char text[256];
	OK(primeshare_buffer_get_id(full, &id));
	CHECK(primeshare_presenter_describe(show.presenter, full, text, sizeof(text)) == (int)strlen("direct"));
	CHECK(strcmp(text, "direct") == 0);
	CHECK(primeshare_presenter_describe(show.presenter, half, text, sizeof(text)) > 0);
	CHECK(strncmp(text, "copied: ", 8) == 0);
	for (int i = 0; i < 3; i++) {
		OK(primeshare_presenter_present(show.presenter, full, NULL, &frame));
		CHECK(frame > before);
		event = next_event(&show);
		CHECK(event.error == 0);
		CHECK(event.frame == frame);
		CHECK(event.is_direct == 1);
		/* vkms has no time yet for the frame that turns the screen on. */
		CHECK(i == 0 || event.time_ns > 0);
		CHECK(dma_buf_of(show.fd, on_screen(&show)) == id.inode);
		OK(primeshare_presenter_present(show.presenter, half, NULL, &before));
		event = next_event(&show);
		CHECK(event.frame == before && event.error == 0 && event.is_direct == 0);
		CHECK(dma_buf_of(show.fd, on_screen(&show)) != id.inode);
	}
	primeshare_buffer_unref(full);
	primeshare_buffer_unref(half);
	show_end(&show);
}

static void a_frame_waits_for_its_fence_or_is_left_out(void) {
	struct show show = show_begin();
	struct primeshare_buffer *buffer = dumb(show.vgem, show.width, show.height);
	int ends[2];
	CHECK(pipe(ends) == 0);
	struct primeshare_present_info info = {
		.size = sizeof(info), .fences = ends, .fence_count = 1, .timeout_ns = 20 * 1000 * 1000};
	uint64_t frame;
	OK(primeshare_presenter_present(show.presenter, buffer, &info, &frame));
	FAILS(primeshare_presenter_present(show.presenter, buffer, NULL, NULL), EBUSY);
	struct primeshare_present_event event = next_event(&show);
	CHECK(event.frame == frame && event.error == -ETIMEDOUT);
	info.timeout_ns = 0;
	OK(primeshare_presenter_present(show.presenter, buffer, &info, &frame));
	CHECK(primeshare_presenter_dispatch(show.presenter, NULL, 0) == 0);
	CHECK(write(ends[1], "x", 1) == 1);
	event = next_event(&show);
	CHECK(event.frame == frame && event.error == 0);
	OK(primeshare_presenter_reset(show.presenter));
	close(ends[0]);
	close(ends[1]);
	primeshare_buffer_unref(buffer);
	show_end(&show);
}

static void who_is_not_the_master_is_told_so(void) {
	struct show show = show_begin();
	struct primeshare_buffer *buffer = dumb(show.vgem, show.width, show.height);
	OK(primeshare_presenter_present(show.presenter, buffer, NULL, NULL));
	next_event(&show);
	CHECK(ioctl(show.fd, DROP_MASTER) == 0);
	FAILS(primeshare_presenter_present(show.presenter, buffer, NULL, NULL), EACCES);
	CHECK(primeshare_last_error_kind() == PRIMESHARE_ERROR_BUSY);
	CHECK(ioctl(show.fd, SET_MASTER) == 0);
	OK(primeshare_presenter_reset(show.presenter));
	OK(primeshare_presenter_present(show.presenter, buffer, NULL, NULL));
	CHECK(next_event(&show).error == 0);
	primeshare_buffer_unref(buffer);
	show_end(&show);
}

static void screens_that_are_not_there_are_errors(void) {
	struct primeshare_device *vkms = device_of("vkms", 0), *vgem = device_of("vgem", 0), *device, *again;
	struct primeshare_presenter *presenter = NULL;
	struct primeshare_card *card = NULL;
	struct primeshare_presenter_options options = {.size = sizeof(options), .connector = 4711};
	int fd = master_of(vkms);
	FAILS(primeshare_card_create(-1, &card), EBADF);
	CHECK(primeshare_card_create(primeshare_device_fd(vgem), &card) < 0);
	OK(primeshare_card_create(fd, &card));
	OK(primeshare_card_get_device(card, &device));
	OK(primeshare_card_get_device(card, &again));
	CHECK(device == again);
	primeshare_device_unref(again);
	CHECK(primeshare_device_is_same(device, vkms) && primeshare_device_fd(device) != fd);
	FAILS(primeshare_presenter_create(card, vgem, &options, &presenter), ENOENT);
	options.connector = 0;
	options.buffers = 1;
	FAILS(primeshare_presenter_create(card, vgem, &options, &presenter), EINVAL);
	options.buffers = 0;
	options.width = 17;
	FAILS(primeshare_presenter_create(card, vgem, &options, &presenter), ENOENT);
	CHECK(presenter == NULL);
	primeshare_card_unref(card);
	primeshare_device_unref(device);
	primeshare_device_unref(vkms);
	primeshare_device_unref(vgem);
	close(fd);
}

int main(void) {
	RUN(a_buffer_has_one_framebuffer);
	RUN(frames_are_shown_directly_or_copied);
	RUN(a_frame_waits_for_its_fence_or_is_left_out);
	RUN(who_is_not_the_master_is_told_so);
	RUN(screens_that_are_not_there_are_errors);
}
