// Preloaded into QEMU, so that what draws for it is the same on every host: hosts with a GPU would draw by that, and
// many have no /dev/udmabuf, or none that the user may open.
//
// lavapipe, which renders for the guest, makes its exportable memory of udmabufs. Nobody on the host hands them to a
// device: lavapipe, virglrenderer and QEMU only ask for their size and map them, which a memfd does as well. So the
// memfd itself stands for its dma-buf, and the ioctl that brackets access by the processor does nothing.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char device[] = "/dev/udmabuf";
static const char name[] = "primeshare-udmabuf";

// Whether the fd is what stands for the opened device.
static int is_device(int fd)
{
	char link[64], target[128];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, target, sizeof target - 1);
	if (length < 0)
		return 0;
	target[length] = 0;
	return strstr(target, name) != NULL;
}

static int open_device(void)
{
	return (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC);
}

#define WRAP_OPEN(function)                                                        \
	int function(const char *path, int flags, ...)                             \
	{                                                                          \
		va_list arguments;                                                 \
		va_start(arguments, flags);                                        \
		int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, int) : 0; \
		va_end(arguments);                                                 \
		if (strcmp(path, device) == 0)                                      \
			return open_device();                                      \
		int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, #function); \
		return next(path, flags, mode);                                    \
	}

WRAP_OPEN(open)
WRAP_OPEN(open64)

// What open() becomes in programs built with _FORTIFY_SOURCE.
int __open_2(const char *path, int flags)
{
	return open(path, flags);
}

int __open64_2(const char *path, int flags)
{
	return open64(path, flags);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);
	if (request == UDMABUF_CREATE && is_device(fd)) {
		const struct udmabuf_create *create = argument;
		// A part of a memfd could not be told from all of it; nobody here asks for one.
		if (create->offset != 0) {
			errno = EINVAL;
			return -1;
		}
		int cloexec = create->flags & UDMABUF_FLAGS_CLOEXEC;
		return fcntl((int)create->memfd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	}
	int result = (int)syscall(SYS_ioctl, fd, request, argument);
	if (result < 0 && request == DMA_BUF_IOCTL_SYNC && errno == ENOTTY)
		return 0;
	return result;
}

// libdrm's: there is no GPU, so that EGL offers its software device.
int drmGetDevices2(uint32_t flags, void *devices, int count)
{
	(void)flags;
	(void)devices;
	(void)count;
	return 0;
}
