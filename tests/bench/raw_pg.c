/*
 * The raw libpq loops: what the database takes for the same work, without a file system.
 *
 *   raw_pg copy   CONNINFO REGION [COUNT]                 COPY of the region's user documents to memory,
 * dropped raw_pg select CONNINFO REGION PACK [COUNT [SEED]]     one prepared SELECT of one document, one
 * after the other raw_pg put    CONNINFO REGION PACK [CONNECTIONS]      put_users() of each file of the pack,
 * a transaction each
 *
 * The pack (pack.h) holds files named <id>.json; `select` takes them in the order of `workload cat` with the
 * same count and seed. Connections are threads, each with its own statement prepared before the clock starts.
 * Prints one line of JSON; exit code 1 with the server's words when something failed.
 */
#include <libpq-fe.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#include "pack.h"
#include "sample.h"

enum { MAX_CONNECTIONS = 64 };

static const char SELECT_SQL[] = "SELECT id, rev, updated_us, content_us, body FROM campusfs.doc_users"
                                 " WHERE region = $1::smallint AND id = $2::bigint";

static const char PUT_SQL[] = "SELECT outcome, id, rev, updated_us, content_us, body FROM campusfs.put_users("
                              "$1::smallint, $2::bigint, $3::jsonb, NULL, NULL, false, $4::uuid, 'bench')";

struct job {
    PGconn *conn;
    const struct pack *pack;
    const char *region;
    unsigned number, connections;
    int64_t *latency_ns; /* of the whole pack; this job writes its own files' */
    int64_t finished_ns;
    unsigned failed;
    pthread_barrier_t *start;
};

static void finishp(PGconn **conn)
{
    PQfinish(*conn);
}

static PGconn *connect_database(const char *conninfo)
{
    PGconn *conn = PQconnectdb(conninfo);
    if (PQstatus(conn) == CONNECTION_OK)
        return conn;
    fprintf(stderr, "raw_pg: %s", PQerrorMessage(conn));
    PQfinish(conn);
    return NULL;
}

/* True when the server says what was expected; prints its words and drops the result otherwise. */
static bool expect(PGconn *conn, PGresult *result, ExecStatusType status)
{
    bool as_expected = PQresultStatus(result) == status;
    if (!as_expected)
        fprintf(stderr, "raw_pg: %s", PQerrorMessage(conn));
    PQclear(result);
    return as_expected;
}

static int run_copy(const char *conninfo, const char *region, const char *count)
{
    CLEANUP(finishp) PGconn *conn = connect_database(conninfo);
    if (!conn)
        return 1;
    char sql[256];
    /* The order and the bound are those of a listing; without a bound COPY reads the whole region. */
    snprintf(sql, sizeof sql, "COPY (SELECT body FROM campusfs.doc_users WHERE region = %lu%s%s) TO STDOUT",
             strtoul(region, NULL, 10), count ? " ORDER BY region, id LIMIT " : "", count ? count : "");
    size_t rows = 0, bytes = 0;
    int64_t start = sample_clock_ns();
    if (!expect(conn, PQexec(conn, sql), PGRES_COPY_OUT))
        return 1;
    char *line;
    int len;
    while ((len = PQgetCopyData(conn, &line, 0)) > 0) {
        rows++;
        bytes += (size_t)len;
        PQfreemem(line);
    }
    if (!expect(conn, PQgetResult(conn), PGRES_COMMAND_OK))
        return 1;
    double seconds = (double)(sample_clock_ns() - start) / 1e9;
    printf("{\"rows\": %zu, \"bytes\": %zu, \"seconds\": %.6f}\n", rows, bytes, seconds);
    return len == -1 ? 0 : 1;
}

static int run_select(const char *conninfo, const char *region, const struct pack *pack, size_t count,
                      uint64_t seed)
{
    CLEANUP(finishp) PGconn *conn = connect_database(conninfo);
    CLEANUP(freep) uint32_t *order = sample_order(pack->nfiles, &count, seed);
    CLEANUP(freep) int64_t *latency = calloc(count + 1, sizeof *latency);
    if (!conn || !order || !latency)
        return 1;
    if (!expect(conn, PQprepare(conn, "one", SELECT_SQL, 2, NULL), PGRES_COMMAND_OK))
        return 1;
    int64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        char id[24];
        snprintf(id, sizeof id, "%lld", (long long)pack_file_id(&pack->files[order[i]]));
        const char *params[] = {region, id};
        int64_t start = sample_clock_ns();
        PGresult *result = PQexecPrepared(conn, "one", 2, params, NULL, NULL, 0);
        latency[i] = sample_clock_ns() - start;
        total += latency[i];
        bool one = PQntuples(result) == 1;
        if (!expect(conn, result, PGRES_TUPLES_OK) || !one) {
            fprintf(stderr, "raw_pg: no user %s in region %s\n", id, region);
            return 1;
        }
    }
    printf("{\"rows\": %zu, \"seconds\": %.6f, ", count, (double)total / 1e9);
    sample_print(stdout, latency, count);
    puts("}");
    return 0;
}

/* A random UUID (version 4) for each call, as a mount gives each save. */
static void make_request_id(char out[37])
{
    unsigned char b[16];
    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        abort();
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    for (size_t i = 0, at = 0; i < sizeof b; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            out[at++] = '-';
        at += (size_t)snprintf(out + at, 37 - at, "%02x", b[i]);
    }
}

/* One put; the document's text is NUL-terminated first, as libpq wants text parameters. */
static bool put_file(const struct job *job, const struct pack_file *file)
{
    char id[24], request[37];
    CLEANUP(freep) char *text = strndup(file->data, file->size);
    if (!text)
        return false;
    snprintf(id, sizeof id, "%lld", (long long)pack_file_id(file));
    make_request_id(request);
    const char *params[] = {job->region, id, text, request};
    PGresult *result = PQexecPrepared(job->conn, "put", 4, params, NULL, NULL, 0);
    bool updated = PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), "updated") == 0;
    if (!expect(job->conn, result, PGRES_TUPLES_OK))
        return false;
    if (!updated)
        fprintf(stderr, "raw_pg: user %s was not updated\n", id);
    return updated;
}

static void *run_job(void *arg)
{
    struct job *job = arg;
    /* The first one makes what is made once a connection. */
    if (job->number < job->pack->nfiles)
        job->failed += !put_file(job, &job->pack->files[job->number]);
    pthread_barrier_wait(job->start);
    for (size_t i = job->number + job->connections; i < job->pack->nfiles; i += job->connections) {
        int64_t start = sample_clock_ns();
        job->failed += !put_file(job, &job->pack->files[i]);
        job->latency_ns[i] = sample_clock_ns() - start;
    }
    job->finished_ns = sample_clock_ns();
    return NULL;
}

static bool prepare_jobs(struct job *jobs, unsigned n, const char *conninfo)
{
    for (unsigned i = 0; i < n; i++) {
        jobs[i].conn = connect_database(conninfo);
        if (!jobs[i].conn ||
            !expect(jobs[i].conn, PQprepare(jobs[i].conn, "put", PUT_SQL, 4, NULL), PGRES_COMMAND_OK))
            return false;
    }
    return true;
}

static int run_put(const char *conninfo, const char *region, const struct pack *pack, unsigned connections)
{
    struct job jobs[MAX_CONNECTIONS] = {0};
    pthread_t threads[MAX_CONNECTIONS];
    pthread_barrier_t start;
    CLEANUP(freep) int64_t *latency = calloc(pack->nfiles, sizeof *latency);
    if (!latency || !prepare_jobs(jobs, connections, conninfo))
        return 1;
    pthread_barrier_init(&start, NULL, connections + 1);
    for (unsigned i = 0; i < connections; i++) {
        jobs[i] = (struct job){.conn = jobs[i].conn,
                               .pack = pack,
                               .region = region,
                               .number = i,
                               .connections = connections,
                               .latency_ns = latency,
                               .start = &start};
        if (pthread_create(&threads[i], NULL, run_job, &jobs[i]) != 0)
            abort(); /* the others wait at the barrier */
    }
    pthread_barrier_wait(&start);
    int64_t started = sample_clock_ns(), finished = started;
    unsigned failed = 0;
    for (unsigned i = 0; i < connections; i++) {
        pthread_join(threads[i], NULL);
        finished = jobs[i].finished_ns > finished ? jobs[i].finished_ns : finished;
        failed += jobs[i].failed;
        PQfinish(jobs[i].conn);
    }
    pthread_barrier_destroy(&start);
    double seconds = (double)(finished - started) / 1e9;
    size_t before = connections < pack->nfiles ? connections : pack->nfiles;
    printf("{\"rows\": %zu, \"failed\": %u, \"connections\": %u, \"seconds\": %.6f, \"rate\": %.1f, ",
           pack->nfiles, failed, connections, seconds, (double)(pack->nfiles - before) / seconds);
    sample_print(stdout, latency + before, pack->nfiles - before);
    puts("}");
    return failed != 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "copy") == 0 && (argc == 4 || argc == 5))
        return run_copy(argv[2], argv[3], argv[4]);
    bool select = strcmp(what, "select") == 0, put = strcmp(what, "put") == 0;
    if ((!select && !put) || argc < 5 || argc > (select ? 7 : 6)) {
        fputs("usage: raw_pg copy CONNINFO REGION [COUNT] | select CONNINFO REGION PACK [COUNT [SEED]] |\n"
              "       put CONNINFO REGION PACK [CONNECTIONS]\n",
              stderr);
        return 64;
    }
    CLEANUP(pack_freep) struct pack *pack = NULL;
    int r = pack_load(argv[4], &pack);
    if (r < 0) {
        fprintf(stderr, "raw_pg: %s: %s\n", argv[4], strerror(-r));
        return 1;
    }
    unsigned long number = argc > 5 ? strtoul(argv[5], NULL, 10) : select ? 0 : 1;
    if (select)
        return run_select(argv[2], argv[3], pack, number, argc > 6 ? strtoul(argv[6], NULL, 10) : 1);
    if (number < 1 || number > MAX_CONNECTIONS)
        return 64;
    return run_put(argv[2], argv[3], pack, (unsigned)number);
}
