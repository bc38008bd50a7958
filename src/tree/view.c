/*
 * Generated files: the README of the mount, and the control files of .campusfs. A lookup makes a snapshot, so
 * that size and content always agree; one that servers are asked for serves all lookups for a while.
 */
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/json.h"
#include "media/init.h"
#include "shard/health.h"
#include "shard/live.h"
#include "shard/pool_metrics.h"
#include "shard/schema.h"
#include "tree/tree_by.h"
#include "tree/tree_media.h"
#include "tree/unopened.h"

enum {
    HEALTH_MS = 3000,      /* the longest that a probe waits for a node */
    HEALTH_KEPT_MS = 500,  /* the servers are probed no more often than that */
    REPORT_KEPT_MS = 1000, /* a report is made no more often than that */
};

static int add_json(json_t *value, struct buf *out)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    int r = text ? buf_add_text(out, text) : -ENOMEM;
    free(text);
    return r < 0 ? r : buf_add_char(out, '\n');
}

/* The mount's own connections, which the probe does not use. */
static json_t *mongo_pool_json(struct mongo *mongo)
{
    struct mongo_counters c;
    mongo_count(mongo, &c);
    return json_pack("{s:i, s:i, s:i}", "size", (int)c.size, "busy", (int)c.busy, "waiting", (int)c.waiting);
}

/* How each shard tells this mount of changes; the shards stand in the order of the configuration. */
static void add_feeds(struct tree *tree, json_t *health)
{
    size_t i;
    json_t *shard;
    json_array_foreach(json_object_get(health, "shards"), i, shard)
        json_object_set_new(shard, "feed", store_feed_json(tree->store, i));
}

static int64_t health_patience_ms(const struct tree *tree)
{
    int64_t ms = tree->config->connect_timeout_ms;
    return ms < HEALTH_MS ? ms : HEALTH_MS;
}

static void add_mongodb(struct tree *tree, const struct op *op, enum health_status status, json_t *health)
{
    json_t *mongodb = NULL;
    if (!tree->config->mongodb_uri[0] || media_ping(tree->config->mongodb_uri, op, &mongodb) < 0)
        return;
    if (!json_is_true(json_object_get(mongodb, "reachable")) && status == HEALTH_OK)
        json_object_set_new(health, "status", json_string("degraded"));
    json_object_set_new(mongodb, "pool", mongo_pool_json(tree->mongo));
    json_object_set_new(health, "mongodb", mongodb);
}

/* Who is interrupted has seen less than there is: -EINTR. */
static int render_health(struct tree *tree, const struct caller *caller, struct buf *out)
{
    json_t *health = NULL;
    enum health_status status;
    char at[CLOCK_TEXT];
    struct op op = caller->op;
    op.deadline = clock_now_ms() + health_patience_ms(tree);
    clock_text(at);
    const struct config *now = config_hold(tree->config);
    int r = health_probe(now, tree->cluster, &op, &health, &status);
    config_put(now);
    if (r == 0) {
        json_object_set_new(health, "probed_at", json_string(at));
        add_mongodb(tree, &op, status, health);
        add_feeds(tree, health);
        r = op_interrupted(&op) ? -EINTR : add_json(health, out);
    }
    json_decref(health);
    return r;
}

static const char *const request_names[TREE_REQUESTS] = {
    [TREE_LOOKUP] = "lookup",   [TREE_GETATTR] = "getattr", [TREE_SETATTR] = "setattr",
    [TREE_OPEN] = "open",       [TREE_CREATE] = "create",   [TREE_READ] = "read",
    [TREE_WRITE] = "write",     [TREE_FLUSH] = "flush",     [TREE_FSYNC] = "fsync",
    [TREE_RELEASE] = "release", [TREE_OPENDIR] = "opendir", [TREE_READDIR] = "readdir",
    [TREE_UNLINK] = "unlink",   [TREE_RENAME] = "rename",   [TREE_OTHER] = "other",
};

static int mongo_metrics(struct mongo *mongo, struct buf *out)
{
    struct mongo_counters c;
    mongo_count(mongo, &c);
    return buf_printf(
        out,
        "# TYPE campusfs_mongodb_connections_limit gauge\ncampusfs_mongodb_connections_limit %u\n"
        "# TYPE campusfs_mongodb_busy gauge\ncampusfs_mongodb_busy %u\n"
        "# TYPE campusfs_mongodb_waiting gauge\ncampusfs_mongodb_waiting %u\n"
        "# TYPE campusfs_mongodb_operations_total counter\ncampusfs_mongodb_operations_total %llu\n"
        "# TYPE campusfs_mongodb_errors_total counter\ncampusfs_mongodb_errors_total %llu\n"
        "# TYPE campusfs_mongodb_given_up_total counter\ncampusfs_mongodb_given_up_total %llu\n"
        "# TYPE campusfs_mongodb_seconds_total counter\ncampusfs_mongodb_seconds_total %.3f\n",
        c.size, c.busy, c.waiting, (unsigned long long)c.jobs, (unsigned long long)c.failed,
        (unsigned long long)c.given_up, (double)c.took_ms / 1000);
}

static int render_metrics(struct tree *tree, const struct caller *caller, struct buf *out)
{
    struct node_usage usage, unopened;
    (void)caller;
    tree_sweep(tree);
    nodes_usage(tree->nodes, &usage);
    unopened_usage(tree->unopened, &unopened);
    int r = buf_printf(out,
                       "# TYPE campusfs_uptime_seconds gauge\ncampusfs_uptime_seconds %.3f\n"
                       "# TYPE campusfs_scratch_files gauge\ncampusfs_scratch_files %zu\n"
                       "# TYPE campusfs_scratch_bytes gauge\ncampusfs_scratch_bytes %zu\n"
                       "# TYPE campusfs_scratch_limit_bytes gauge\ncampusfs_scratch_limit_bytes %zu\n"
                       "# TYPE campusfs_scratch_swept_total counter\ncampusfs_scratch_swept_total %llu\n"
                       "# TYPE campusfs_unopened_drafts gauge\ncampusfs_unopened_drafts %zu\n"
                       "# TYPE campusfs_unopened_bytes gauge\ncampusfs_unopened_bytes %zu\n"
                       "# TYPE campusfs_requests_total counter\n",
                       (double)(clock_now_ms() - tree->started_at) / 1000, usage.files, usage.bytes,
                       tree->config->scratch_size,
                       (unsigned long long)__atomic_load_n(&tree->swept, __ATOMIC_RELAXED), unopened.files,
                       unopened.bytes);
    for (size_t i = 0; r == 0 && i < TREE_REQUESTS; i++)
        r = buf_printf(out, "campusfs_requests_total{request=\"%s\"} %llu\n", request_names[i],
                       (unsigned long long)__atomic_load_n(&tree->requests[i], __ATOMIC_RELAXED));
    if (r == 0)
        r = buf_add_text(out, "# TYPE campusfs_request_errors_total counter\n");
    for (size_t i = 0; r == 0 && i < TREE_REQUESTS; i++)
        r = buf_printf(out, "campusfs_request_errors_total{request=\"%s\"} %llu\n", request_names[i],
                       (unsigned long long)__atomic_load_n(&tree->errors[i], __ATOMIC_RELAXED));
    r = r < 0 ? r : by_metrics(tree, out);
    r = r < 0 ? r : store_metrics(tree->store, out);
    r = r < 0 ? r : cluster_metrics(tree->cluster, out);
    r = r < 0 ? r : pool_metrics(tree->cluster, out);
    if (r == 0 && tree->mongo)
        r = mongo_metrics(tree->mongo, out);
    return r == 0 && tree->media ? media_metrics(tree->media, out) : r;
}

static int render_config(struct tree *tree, const struct caller *caller, struct buf *out)
{
    (void)caller;
    const struct config *now = config_hold(tree->config);
    int r = config_dump(now, out);
    config_put(now);
    return r;
}

static int render_reload(struct tree *tree, const struct caller *caller, struct buf *out)
{
    (void)caller;
    pthread_mutex_lock(&tree->lock);
    int r = buf_add_text(out, tree->reload ? tree->reload : "");
    pthread_mutex_unlock(&tree->lock);
    return r;
}

static int render_errors(struct tree *tree, const struct caller *caller, struct buf *out)
{
    (void)caller;
    return report_text(tree->report, out);
}

static int render_version(struct tree *tree, const struct caller *caller, struct buf *out)
{
    (void)tree;
    (void)caller;
    return buf_printf(out, "campusfs %s, schema %u\n", CAMPUSFS_VERSION, schema_expected());
}

static const struct view views[] = {
    {"config", render_config},      {"errors.jsonl", render_errors, .of_rows = true},
    {"health.json", render_health}, {"metrics", render_metrics},
    {"version", render_version},    {"reload", render_reload},
};

const struct view *view_at(size_t index)
{
    return index < sizeof views / sizeof views[0] ? &views[index] : NULL;
}

/* The folder itself has region 0. */
uint64_t view_ino(size_t index)
{
    return address_place(PLACE_CONTROL, (unsigned)index, 1);
}

const struct view *view_named(const char *name)
{
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++)
        if (strcmp(views[i].name, name) == 0)
            return &views[i];
    return NULL;
}

static int text_node(struct tree *tree, const struct buf *text, mode_t mode, struct node **out)
{
    struct node *node;
    int r = node_new_free(tree->nodes, NODE_TEXT, &node);
    if (r < 0)
        return r;
    node->mode = mode;
    node->uid = tree->config->uid;
    node->gid = tree->config->gid;
    r = text->len ? node_write(tree->nodes, node, text->data, text->len, 0) : 0;
    if (r < 0)
        node_unref(tree->nodes, node);
    else
        *out = node;
    return r;
}

/* What may be read of a collection's files, by the classes of a file that is the mount's own. */
static mode_t readable(const struct tree *tree, const struct access *access)
{
    mode_t mode = access->file_mode & 0444;
    return access->gid == tree->config->gid ? mode : (mode & 0404) | (mode & 0004) << 3;
}

/*
 * What tells of rows is read by nobody who may not read their files: its mode has what the modes of all
 * collections have, for a group that is not the collection's what that lets others do. `secret`: also of the
 * secret ones, of media and of users' documents; no report is made of these.
 */
static mode_t mode_for_rows(const struct tree *tree, bool secret)
{
    const struct access *access = tree->access;
    mode_t mode = tree->config->file_mode & 0444;
    mode &= secret && tree->media ? readable(tree, &access[ACCESS_MEDIA]) : 0444;
    for (const struct collection *c = collection_next(NULL); c; c = collection_next(c))
        if (collection_shown(c, tree->config) && (secret || (!c->secret && !c->of_users)))
            mode &= readable(tree, &access[c->number]);
    return mode;
}

/*
 * The snapshot with a reference, when it is new enough; else NULL, and the caller makes one, which ends by
 * snapshot_made(). Waits while another thread does: -EINTR, -EIO.
 */
static int snapshot_take(struct tree *tree, struct snapshot *snapshot, int64_t kept_ms, const struct op *op,
                         struct node **out)
{
    int r = 0;
    *out = NULL;
    pthread_mutex_lock(&tree->lock);
    for (;;) {
        if (snapshot->node && clock_now_ms() - snapshot->at < kept_ms) {
            *out = snapshot->node;
            node_ref(tree->nodes, *out);
            break;
        }
        if (!snapshot->making) {
            snapshot->making = true;
            break;
        }
        r = op_wait(&tree->made, &tree->lock, op);
        if (r < 0)
            break;
    }
    pthread_mutex_unlock(&tree->lock);
    return r;
}

/* Takes the place of the former one, which lives on where it is open. NULL: there is none. */
static void snapshot_set(struct tree *tree, struct snapshot *snapshot, struct node *node, bool made)
{
    if (node)
        node_ref(tree->nodes, node);
    pthread_mutex_lock(&tree->lock);
    struct node *former = snapshot->node;
    snapshot->node = node;
    snapshot->at = clock_now_ms();
    snapshot->making = snapshot->making && !made;
    pthread_cond_broadcast(&tree->made);
    pthread_mutex_unlock(&tree->lock);
    node_unref(tree->nodes, former);
}

/* By who was to make it; NULL: it was not to be had, and whoever waits tries next. */
static void snapshot_made(struct tree *tree, struct snapshot *snapshot, struct node *node)
{
    snapshot_set(tree, snapshot, node, true);
}

void view_forget(struct tree *tree)
{
    snapshot_set(tree, &tree->health, NULL, false);
    for (size_t i = 0; i < REPORTS; i++)
        snapshot_set(tree, &tree->reports[i], NULL, false);
}

static int render_node(struct tree *tree, const struct caller *caller, const struct view *view,
                       struct node **out)
{
    struct buf text CLEANUP(buf_clear) = {0};
    mode_t mode = view->of_rows ? mode_for_rows(tree, true) : tree->config->file_mode & 0444;
    int r = view->render(tree, caller, &text);
    if (r == 0)
        r = text_node(tree, &text, mode, out);
    if (r == 0)
        (*out)->shown_ino = view_ino((size_t)(view - views));
    return r;
}

int view_node(struct tree *tree, const struct caller *caller, const struct view *view, struct node **out)
{
    if (view->render != render_health)
        return render_node(tree, caller, view, out);
    struct op op = caller->op;
    op.deadline = clock_now_ms() + 2 * health_patience_ms(tree);
    int r = snapshot_take(tree, &tree->health, HEALTH_KEPT_MS, &op, out);
    if (r < 0 || *out)
        return r;
    r = render_node(tree, caller, view, out);
    snapshot_made(tree, &tree->health, *out);
    return r;
}

bool view_report_name(size_t index, char *out, size_t size)
{
    const char *name = report_name_at(index);
    if (name)
        snprintf(out, size, "%s.json", name);
    return name != NULL;
}

bool view_report_named(const char *name, size_t *index)
{
    char known[64];
    for (*index = 0; view_report_name(*index, known, sizeof known); ++*index)
        if (strcmp(known, name) == 0)
            return true;
    return false;
}

/* The folder itself has region 0. */
uint64_t view_report_ino(size_t index)
{
    return address_place(PLACE_REPORTS, (unsigned)index, 1);
}

static int render_report(struct tree *tree, const struct caller *caller, size_t index, struct node **out)
{
    struct buf text CLEANUP(buf_clear) = {.max = REPORT_BYTES};
    struct fail f = {0};
    char path[96];
    int r = report_render(tree->cluster, index, &caller->op, &text, &f);
    if (r < 0 && f.err && r != -EINTR) {
        snprintf(path, sizeof path, ".campusfs/" VIEW_REPORTS "/%s.json", report_name_at(index));
        report_add(tree->report, path, &f);
    }
    if (r == 0)
        r = text_node(tree, &text, mode_for_rows(tree, false), out);
    if (r == 0)
        (*out)->shown_ino = view_report_ino(index);
    return r;
}

int view_report_node(struct tree *tree, const struct caller *caller, size_t index, struct node **out)
{
    int r = snapshot_take(tree, &tree->reports[index], REPORT_KEPT_MS, &caller->op, out);
    if (r < 0 || *out)
        return r;
    r = render_report(tree, caller, index, out);
    snapshot_made(tree, &tree->reports[index], *out);
    return r;
}

static const char readme_head[] =
    "This is a campusfs mount: an e-learning platform as files. A row is a JSON document, a\n"
    "collection a folder";
static const char readme_plain[] = "; media are plain files";
static const char readme_body[] =
    ".\n"
    "\n"
    "  ls regions/REGION/users             who is there\n"
    "  jq .email regions/*/users/*.json    read with any tool\n"
    "  vim regions/REGION/users/ID.json    correct with any editor: saving is one transaction\n"
    "  cat regions/REGION/users/.next-id   a fresh id; writing ID.json or new.json makes a row\n"
    "  ls regions/REGION/users/.by         by which fields rows can be found:\n"
    "  cat regions/REGION/users/.by/email/ada@example.org/*.json\n"
    "  rm regions/REGION/reviews/ID.json   delete; EBUSY says who still needs it\n"
    "  rsync -a . /backup/                 back it all up; a second run sends what has changed\n"
    "\n"
    "A save that is refused changes nothing. The reason in words is the last line of\n"
    ".campusfs/errors.jsonl; the text is kept in .refused/ beside the row, can be edited there\n"
    "and tried again:  mv .refused/ID.json ID.json\n"
    "\n"
    "Never listed, but there by name:\n"
    "  .campusfs/health.json, metrics, config, errors.jsonl, version, reload, reports/\n"
    "  .next-id, .refused/, .deleted/ and .by/ in each collection of rows; what was deleted within\n"
    "  a day comes back by  mv .deleted/ID.json ID.json\n"
    "  .export.jsonl in each of these: all its rows as JSON lines, in one stream\n";
static const char readme_meta[] =
    "  .meta/ in each folder of media: NAME.json says what is known of a file, title and language\n"
    "  are written by saving it; NAME.revisions/ has what it was before\n";
static const char readme_tail[] =
    "\n"
    "Any other name in a collection's folder (tmp.json, .x.swp) is a scratch file: in memory, of\n"
    "this mount only, gone when it ends.\n"
    "\n"
    "Regions:";

static int render_readme(struct tree *tree, struct buf *out)
{
    const char *parts[] = {readme_head, tree->media ? readme_plain : "", readme_body,
                           tree->media ? readme_meta : "", readme_tail};
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof parts / sizeof *parts; i++)
        r = buf_add_text(out, parts[i]);
    for (size_t i = 0; r == 0 && i < tree->config->nregions; i++)
        r = buf_printf(out, " %s", tree->config->regions[i].name);
    return r < 0 ? r : buf_add_text(out, "\nManual: campusfs(8), campusfs.conf(5).\n");
}

int view_readme_renew(struct tree *tree)
{
    struct buf text CLEANUP(buf_clear) = {0};
    int r = render_readme(tree, &text);
    if (r < 0)
        return r;
    struct node *node = tree->readme;
    pthread_mutex_lock(&node->lock);
    bool same = node->content.len == text.len && memcmp(node->content.data, text.data, text.len) == 0;
    r = same ? 0 : node_resize(tree->nodes, node, 0);
    if (r == 0 && !same)
        r = node_write(tree->nodes, node, text.data, text.len, 0);
    if (!same)
        clock_gettime(CLOCK_REALTIME, &node->mtime);
    node->ctime = node->mtime;
    node->uid = tree->config->uid;
    node->gid = tree->config->gid;
    node->mode = tree->config->file_mode & 0444;
    pthread_mutex_unlock(&node->lock);
    return r;
}

int view_readme(struct tree *tree, struct node **out)
{
    struct buf text CLEANUP(buf_clear) = {0};
    int r = render_readme(tree, &text);
    return r < 0 ? r : text_node(tree, &text, tree->config->file_mode & 0444, out);
}
