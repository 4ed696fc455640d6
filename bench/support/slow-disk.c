/*
 * A disk of chosen slowness under a PostgreSQL, for experiments: preloaded, it lets each fdatasync take longer by a set
 * time, and each write to the WAL by a set time for each byte. Both numbers stand in the file `slow-disk` of the data
 * directory, which is the server's working directory, and may change at any time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct slowness
{
	uint64_t sync_ns;
	uint64_t write_ns_per_byte;
};

static const volatile struct slowness *
slowness(void)
{
	static const volatile struct slowness *mapped;
	int			fd;
	void	   *at;

	if (mapped != NULL)
		return mapped;
	fd = open("slow-disk", O_RDONLY);
	if (fd < 0)
		return NULL;
	at = mmap(NULL, sizeof(struct slowness), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (at != MAP_FAILED)
		mapped = at;
	return mapped;
}

static void
delay(uint64_t ns)
{
	struct timespec left = {(time_t) (ns / 1000000000), (long) (ns % 1000000000)};

	while (ns > 0 && nanosleep(&left, &left) != 0)
		;
}

static void
delay_write(int fd, ssize_t bytes)
{
	const volatile struct slowness *slow = slowness();
	char		name[32];
	char		target[256];
	ssize_t		length;

	if (slow == NULL || slow->write_ns_per_byte == 0 || bytes <= 0)
		return;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	length = readlink(name, target, sizeof(target) - 1);
	if (length <= 0)
		return;
	target[length] = '\0';
	if (strstr(target, "/pg_wal/") != NULL)
		delay(slow->write_ns_per_byte * (uint64_t) bytes);
}

int
fdatasync(int fd)
{
	static int	(*real) (int);
	const volatile struct slowness *slow = slowness();

	if (real == NULL)
		real = dlsym(RTLD_NEXT, "fdatasync");
	if (slow != NULL)
		delay(slow->sync_ns);
	return real(fd);
}

ssize_t
pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	static ssize_t (*real) (int, const void *, size_t, off_t);
	ssize_t		written;

	if (real == NULL)
		real = dlsym(RTLD_NEXT, "pwrite");
	written = real(fd, buffer, bytes, offset);
	delay_write(fd, written);
	return written;
}

ssize_t
pwrite64(int fd, const void *buffer, size_t bytes, off64_t offset)
{
	return pwrite(fd, buffer, bytes, (off_t) offset);
}
