/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shortens what read() of a device's migration data gives, so that a small state travels in many
 * packets. To be preloaded into a source QEMU; MFDTOOL_READ_SIZE is the most that a read gives.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char migration_file[] = "anon_inode:mtty_mig";

static int is_migration_data(int fd)
{
    char path[64];
    char target[PATH_MAX];
    ssize_t length;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    length = readlink(path, target, sizeof(target) - 1);
    if (length < 0) {
        return 0;
    }
    target[length] = '\0';
    return strncmp(target, migration_file, sizeof(migration_file) - 1) == 0;
}

ssize_t read(int fd, void *buffer, size_t size)
{
    static ssize_t (*next)(int, void *, size_t);
    const char *text = getenv("MFDTOOL_READ_SIZE");
    size_t limit = text ? strtoul(text, NULL, 10) : 0;

    if (!next) {
        next = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    }
    if (limit && limit < size && is_migration_data(fd)) {
        size = limit;
    }
    return next(fd, buffer, size);
}
