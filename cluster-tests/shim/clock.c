/* A wall clock that a test can move: CLOCK_REALTIME plus the nanoseconds in the file that KVDB_CLOCK names.
 * Preloaded into a node. The file is mapped, so that a change is seen at once; other clocks are not touched. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;

__attribute__((constructor)) static void open_offset(void) {
    const char *path = getenv("KVDB_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (failed || clock != CLOCK_REALTIME || !offset) return failed;
    int64_t at = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + *offset;
    now->tv_sec = at / INT64_C(1000000000);
    now->tv_nsec = at % INT64_C(1000000000);
    return 0;
}
