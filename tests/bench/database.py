"""The database behind the bench: a cluster of its own, filled with users, and the raw libpq loops against its nodes."""

import json
import time

from postgres import connection_string
from works import WorkError, run

# Documents as different from each other as people's: a mount may well compress what it keeps.
WORDS = """amber atlas bamboo basil birch bronze canyon cedar cello chess cobalt copper coral cotton cricket delta dune
ember fable falcon fern fjord flute forest galaxy garnet glacier harbor hazel heron indigo island ivory jasmine juniper
kayak kiwi lagoon lantern lemon linen lotus lynx maple marble meadow mosaic nectar nova oasis olive opal orchid pebble
piano prism quartz raven saffron sierra tango tulip velvet willow""".split()

USERS_SQL = """
INSERT INTO campusfs.users (region, id, email, username, first_name, last_name, role, status, email_verified,
                            last_login_at, created_at, updated_at, content_at)
SELECT %(region)s, (%(first)s + n::bigint) * 1000 + %(shard)s, 'user' || n || '.' || %(region)s || '@example.org',
       'user' || n || '_' || %(region)s,
       initcap((%(words)s)[1 + (hashint4(n) & 63)]),
       initcap((%(words)s)[1 + (hashint4(n + 17) & 63)]) || '-' ||
           (%(words)s)[1 + (hashint4(n + 29) & 63)],
       'student', 'active', n %% 3 > 0, t - n %% 100 * interval '1 hour', t - interval '200 days', t, t
FROM generate_series(1, %(count)s) AS n,
     LATERAL (SELECT timestamptz '2026-06-01 12:00:00+00' + n * interval '1.000123 s') AS times (t)
"""

PROFILES_SQL = """
INSERT INTO campusfs.user_profiles (region, user_id, bio, avatar_url, phone, date_of_birth, country, city, timezone,
                                    language, website)
SELECT %(region)s, (%(first)s + n::bigint) * 1000 + %(shard)s,
       (SELECT initcap(string_agg((%(words)s)[1 + (hashint4(n * 31 + k) & 63)], ' ')) || '.'
        FROM generate_series(1, 8 + n %% 12) AS k),
       'https://cdn.example.org/avatars/' || md5(n::text) || '.webp', '+351 ' || 200000000 + (hashint4(n) & 67108863),
       date '1960-01-01' + (hashint4(n + 3) & 16383), 'PT', initcap((%(words)s)[1 + (hashint4(n + 5) & 63)]),
       'Europe/Lisbon', 'pt-PT',
       CASE WHEN n %% 4 = 0 THEN 'https://user' || n || '.example.org' END
FROM generate_series(1, %(count)s) AS n
"""

REGION_IDS = 2000000  # ids are unique over all regions: each gets a range of its own
CATCH_UP_TIMEOUT = 120


class Database:
    """One shard of the cluster, as the raw loops see it: region and shard by name and number."""

    def __init__(self, cluster, programs, region, shards):
        self.cluster = cluster
        self.programs = programs
        self.region = region
        shard = cluster.shard(region)
        self.shard_number, regions = shards[shard]
        self.region_number = regions[region]

    def seed(self, count):
        """Fills the empty region, settles the tables, and waits until the replica has it all."""
        numbers = {'region': self.region_number, 'shard': self.shard_number, 'count': count,
                   'first': self.region_number * REGION_IDS, 'words': WORDS}
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute('BEGIN')
            cursor.execute(USERS_SQL, numbers)
            cursor.execute(PROFILES_SQL, numbers)
            cursor.execute('COMMIT')
            cursor.execute('VACUUM (FREEZE, ANALYZE) campusfs.users, campusfs.user_profiles')
            cursor.execute('CHECKPOINT')
        self.catch_up()

    def connect(self):
        return self.cluster.connect(self.region)

    def catch_up(self):
        """Waits until the replica has replayed what the primary has flushed by now."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute('SELECT pg_current_wal_flush_lsn()')
            wanted, = cursor.fetchone()
        deadline = time.monotonic() + CATCH_UP_TIMEOUT
        with self.cluster.connect(self.cluster.replica(self.region)) as connection, connection.cursor() as cursor:
            while True:
                cursor.execute('SELECT pg_last_wal_replay_lsn() >= %s', (wanted,))
                if cursor.fetchone()[0]:
                    return
                if time.monotonic() > deadline:
                    raise WorkError(f'the replica of {self.region} does not catch up')
                time.sleep(0.02)

    def documents(self, limit):
        """(id, updated_us, body) of the region's first users, from the primary."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute('SELECT id, updated_us, body FROM campusfs.doc_users WHERE region = %s ORDER BY id LIMIT %s',
                           (self.region_number, limit))
            return cursor.fetchall()

    # ---- the raw loops; reads ask the replica, as a mount does

    def _conninfo(self, node):
        """As a mount connects: over TCP, with a password."""
        return connection_string(host=node.host, port=node.port, dbname='campusfs', user='campusfs_rw',
                                 passfile=self.cluster.passfile, application_name='bench', options='-c timezone=UTC')

    def _raw(self, what, node, *args):
        _, output = run([self.programs.raw_pg, what, self._conninfo(node), self.region_number, *args])
        return json.loads(output)

    def copy_seconds(self, count):
        """COPY of all documents of the region to memory."""
        done = self._raw('copy', self.cluster.replica(self.region))
        if done['rows'] != count:
            raise WorkError(f'COPY of {self.region}: {done["rows"]} rows instead of {count}')
        return done['seconds']

    def select(self, pack_path, count):
        """One prepared SELECT a row: rows, seconds, p50_us, ..."""
        return self._raw('select', self.cluster.replica(self.region), pack_path, count)

    def put(self, pack_path, connections):
        """put_users() of every document of the pack: rows, seconds, rate, p50_us, ..."""
        return self._raw('put', self.cluster.primary(self.region), pack_path, connections)
