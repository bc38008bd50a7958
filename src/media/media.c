#include "media/media.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

struct region_media {
    struct media *media;
    unsigned number;
    const char *name;                    /* borrowed */
    _Atomic(struct media_index *) index; /* NULL = there is no such region yet; set once, last */
};

struct media {
    const struct config *config; /* borrowed */
    struct mongo *mongo;         /* borrowed */
    struct chunk_cache *chunks;
    struct staging *staging;
    struct media_sweep *sweep; /* NULL: not by this mount */
    void (*outdated)(void *arg, unsigned region, bool file, uint64_t number);
    void *arg;
    struct region_media regions[CONFIG_MAX_REGIONS + 1]; /* by number */
};

static void region_outdated(void *arg, bool file, uint64_t number)
{
    struct region_media *region = arg;
    region->media->outdated(region->media->arg, region->number, file, number);
}

static int open_region(struct media *media, const struct config_region *from)
{
    struct region_media *region = &media->regions[from->number];
    region->media = media;
    region->number = from->number;
    region->name = from->name;
    struct media_index_options options = {.region = from->name,
                                          .wait_ms = media->config->timeout_ms,
                                          .poll_ms = media->config->media_poll_ms,
                                          .may_write = !media->config->read_only,
                                          .outdated = region_outdated,
                                          .arg = region};
    struct media_index *index = NULL;
    int r = media_index_open(media->mongo, &options, &index);
    atomic_store(&region->index, index);
    return r;
}

static int open_writing(struct media *media)
{
    const struct config *config = media->config;
    struct staging_options staging = {.memory = config->media_write_size, .step_ms = config->timeout_ms};
    struct media_sweep_options sweep = {
        .every_ms = config->media_sweep_ms, .keep_ms = config->media_keep_ms, .step_ms = config->timeout_ms};
    if (config->read_only)
        return 0;
    int r = staging_open(media->mongo, &staging, &media->staging);
    return r == 0 && sweep.every_ms > 0 ? media_sweep_start(config, media->mongo, &sweep, &media->sweep) : r;
}

int media_open(const struct config *config, struct mongo *mongo,
               void (*outdated)(void *arg, unsigned region, bool file, uint64_t number), void *arg,
               struct media **out, struct fail *f)
{
    struct media *media = calloc(1, sizeof(*media));
    if (!media)
        return fail_set(f, ENOMEM, "out of memory");
    media->config = config;
    media->outdated = outdated;
    media->arg = arg;
    media->mongo = mongo;
    int r = chunk_cache_open(media->mongo, config->media_cache_size, config->timeout_ms, &media->chunks);
    for (size_t i = 0; r == 0 && i < config->nregions; i++)
        r = open_region(media, &config->regions[i]);
    r = r < 0 ? r : open_writing(media);
    if (r < 0) {
        media_close(media);
        return fail_set(f, -r, "cannot prepare for media");
    }
    *out = media;
    return 0;
}

int media_follow(struct media *media)
{
    const struct config *config = media->config;
    int r = 0;
    for (size_t i = 0; r == 0 && i < config->nregions; i++)
        if (!media_index(media, config->regions[i].number))
            r = open_region(media, &config->regions[i]);
    return r;
}

void media_ending(struct media *media)
{
    if (!media)
        return;
    media_sweep_ending(media->sweep);
    for (size_t i = 0; i <= CONFIG_MAX_REGIONS; i++)
        if (media->regions[i].index)
            media_index_ending(media->regions[i].index);
}

void media_quiet(struct media *media)
{
    media_ending(media);
    for (size_t i = 0; media && i <= CONFIG_MAX_REGIONS; i++)
        if (media->regions[i].index)
            media_index_end(media->regions[i].index);
}

void media_close(struct media *media)
{
    if (!media)
        return;
    media_sweep_stop(media->sweep);
    staging_close(media->staging);
    for (size_t i = 0; i <= CONFIG_MAX_REGIONS; i++)
        media_index_close(media->regions[i].index);
    chunk_cache_close(media->chunks);
    free(media);
}

struct mongo *media_mongo(struct media *media)
{
    return media->mongo;
}

struct chunk_cache *media_chunks(struct media *media)
{
    return media->chunks;
}

struct staging *media_staging(struct media *media)
{
    return media->staging;
}

struct media_index *media_index(struct media *media, unsigned region)
{
    return region <= CONFIG_MAX_REGIONS ? media->regions[region].index : NULL;
}

const char *media_region(const struct media *media, unsigned region)
{
    return region <= CONFIG_MAX_REGIONS && media->regions[region].name ? media->regions[region].name : "";
}

static int writing_metrics(struct media *media, struct buf *out)
{
    struct staging_stats staging = {0};
    struct media_swept swept = {0};
    if (!media->staging)
        return 0;
    staging_stats(media->staging, &staging);
    if (media->sweep)
        media_sweep_stats(media->sweep, &swept);
    return buf_printf(out,
                      "# TYPE campusfs_media_uploads gauge\n"
                      "campusfs_media_uploads %u\n"
                      "# TYPE campusfs_media_write_bytes gauge\n"
                      "campusfs_media_write_bytes %zu\n"
                      "# TYPE campusfs_media_sent_bytes_total counter\n"
                      "campusfs_media_sent_bytes_total %llu\n"
                      "# TYPE campusfs_media_swept_uploads_total counter\n"
                      "campusfs_media_swept_uploads_total %llu\n"
                      "# TYPE campusfs_media_swept_revisions_total counter\n"
                      "campusfs_media_swept_revisions_total %llu\n",
                      staging.uploads, staging.memory, (unsigned long long)staging.sent,
                      (unsigned long long)swept.uploads, (unsigned long long)swept.revisions);
}

int media_metrics(struct media *media, struct buf *out)
{
    static const struct {
        const char *name, *type;
        size_t offset;
    } families[] = {
        {"files", "gauge", offsetof(struct media_index_stats, files)},
        {"left_out", "gauge", offsetof(struct media_index_stats, left_out)},
        {"index_live", "gauge", offsetof(struct media_index_stats, live)},
        {"index_streaming", "gauge", offsetof(struct media_index_stats, streaming)},
        {"index_scans_total", "counter", offsetof(struct media_index_stats, scans)},
        {"index_events_total", "counter", offsetof(struct media_index_stats, events)},
    };
    struct media_index_stats stats[CONFIG_MAX_REGIONS + 1] = {0};
    int r = chunk_cache_metrics(media->chunks, out);
    r = r < 0 ? r : writing_metrics(media, out);
    for (size_t i = 0; i <= CONFIG_MAX_REGIONS; i++)
        if (media->regions[i].index)
            media_index_stats(media->regions[i].index, &stats[i]);
    for (size_t n = 0; n < sizeof(families) / sizeof(*families); n++) {
        r = r < 0 ? r : buf_printf(out, "# TYPE campusfs_media_%s %s\n", families[n].name, families[n].type);
        for (size_t i = 0; r == 0 && i <= CONFIG_MAX_REGIONS; i++) {
            const void *value = (const char *)&stats[i] + families[n].offset;
            if (media->regions[i].index)
                r = buf_printf(out, "campusfs_media_%s{region=\"%s\"} %llu\n", families[n].name,
                               media->regions[i].name, (unsigned long long)*(const uint64_t *)value);
        }
    }
    return r;
}
