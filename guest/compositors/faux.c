/* Preloaded into compositors: libdrm before 2.4.134 does not know the bus "faux", on which Linux has vgem and vkms since
 * 6.15, and then finds no device at all. With this library such devices look like platform devices to it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static const char FAUX[] = "/faux";
static const char PLATFORM[] = "/platform";

static ssize_t real_readlink(const char *path, char *target, size_t size) {
	static ssize_t (*next)(const char *, char *, size_t);
	if (next == NULL)
		*(void **)&next = dlsym(RTLD_NEXT, "readlink");
	return next(path, target, size);
}

static int ends_with(const char *text, size_t length, const char *end) {
	return length >= strlen(end) && memcmp(text + length - strlen(end), end, strlen(end)) == 0;
}

/* The bus of a device: the end of a link in sysfs. */
ssize_t readlink(const char *path, char *target, size_t size) {
	ssize_t length = real_readlink(path, target, size);
	size_t without = length - strlen(FAUX);
	int is_bus = ends_with(path, strlen(path), "/device/subsystem");
	if (length < 0 || !is_bus || !ends_with(target, length, FAUX) || without + strlen(PLATFORM) > size)
		return length;
	memcpy(target + without, PLATFORM, strlen(PLATFORM));
	return without + strlen(PLATFORM);
}

ssize_t __readlink_chk(const char *path, char *target, size_t size, size_t room) {
	(void)room;
	return readlink(path, target, size);
}

/* The name of a platform device, which libdrm takes from MODALIAS. */
static FILE *uevent_of(const char *path) {
	unsigned major, minor;
	int end = 0;
	if (sscanf(path, "/sys/dev/char/%u:%u/device/uevent%n", &major, &minor, &end) != 2 || path[end] != 0 || end == 0)
		return NULL;
	char link[96], bus[256];
	snprintf(link, sizeof(link), "/sys/dev/char/%u:%u/device/subsystem", major, minor);
	ssize_t length = real_readlink(link, bus, sizeof(bus));
	if (length < 0 || !ends_with(bus, length, FAUX))
		return NULL;
	char text[64];
	int written = snprintf(text, sizeof(text), "MODALIAS=platform:faux%u\n", minor);
	FILE *file = tmpfile();
	if (file != NULL) {
		fwrite(text, 1, written, file);
		rewind(file);
	}
	return file;
}

static FILE *open_file(const char *path, const char *mode, const char *name) {
	FILE *(*next)(const char *, const char *);
	FILE *file = uevent_of(path);
	if (file != NULL)
		return file;
	*(void **)&next = dlsym(RTLD_NEXT, name);
	return next(path, mode);
}

FILE *fopen(const char *path, const char *mode) {
	return open_file(path, mode, "fopen");
}

FILE *fopen64(const char *path, const char *mode) {
	return open_file(path, mode, "fopen64");
}
