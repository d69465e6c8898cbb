// A driver with one screen for all file descriptions of a node, as nouveau, panfrost, lima, freedreno, etnaviv, asahi,
// v3d, vc4 and radeon have: it works on a dup of the first one's fd, so the handles of every buffer belong to the first
// file description, and mean nothing on the others.
//
// Preloaded by tests, over Mesa's own gbm.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

struct gbm_bo;
struct gbm_device;
struct gbm_device *gbm_create_device(int fd);
void gbm_device_destroy(struct gbm_device *device);

#define NEXT(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))

static struct screen {
	dev_t node;
	int fd, users;
	struct gbm_device *device;
} screens[8];

// The devices that were given out, and whose screen each has.
static struct {
	struct gbm_device *device;
	struct screen *screen;
} devices[32];

static struct screen *screen_of(struct gbm_device *device)
{
	for (unsigned int i = 0; i < 32; i++)
		if (device && devices[i].device == device)
			return devices[i].screen;
	return NULL;
}

static struct screen *join(int fd)
{
	struct stat node;
	if (fstat(fd, &node) != 0)
		return NULL;
	struct screen *unused = NULL;
	for (unsigned int i = 0; i < 8; i++) {
		if (screens[i].users > 0 && screens[i].node == node.st_rdev) {
			screens[i].users++;
			return &screens[i];
		}
		if (screens[i].users == 0)
			unused = &screens[i];
	}
	if (!unused)
		return NULL;
	int dup = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	struct gbm_device *device = dup < 0 ? NULL : NEXT(gbm_create_device)(dup);
	if (!device) {
		if (dup >= 0)
			close(dup);
		return NULL;
	}
	*unused = (struct screen){ node.st_rdev, dup, 1, device };
	return unused;
}

static void leave(struct screen *screen)
{
	if (--screen->users > 0)
		return;
	NEXT(gbm_device_destroy)(screen->device);
	close(screen->fd);
}

struct gbm_device *gbm_create_device(int fd)
{
	struct gbm_device *device = NEXT(gbm_create_device)(fd);
	for (unsigned int i = 0; device && i < 32; i++) {
		if (devices[i].device)
			continue;
		devices[i].screen = join(fd);
		devices[i].device = devices[i].screen ? device : NULL;
		break;
	}
	return device;
}

void gbm_device_destroy(struct gbm_device *device)
{
	for (unsigned int i = 0; i < 32; i++) {
		if (devices[i].device == device) {
			leave(devices[i].screen);
			devices[i].device = NULL;
		}
	}
	NEXT(gbm_device_destroy)(device);
}

struct gbm_bo *gbm_bo_create(struct gbm_device *device, uint32_t width, uint32_t height, uint32_t format,
			     uint32_t flags)
{
	struct screen *screen = screen_of(device);
	return NEXT(gbm_bo_create)(screen ? screen->device : device, width, height, format, flags);
}

struct gbm_bo *gbm_bo_create_with_modifiers2(struct gbm_device *device, uint32_t width, uint32_t height,
					     uint32_t format, const uint64_t *modifiers,
					     const unsigned int count, uint32_t flags)
{
	struct screen *screen = screen_of(device);
	device = screen ? screen->device : device;
	return NEXT(gbm_bo_create_with_modifiers2)(device, width, height, format, modifiers, count, flags);
}
