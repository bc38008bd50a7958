"""Every index is there for a query, every query finds its index, and a page of a folder is a range of its primary key.

A database of its own, made from sql/ as init makes it, then filled region after region: what the physical order of rows
hides from the planner (a primary key of region and id beside one of id alone) shows only so. Plans are generic ones, as
a prepared statement of the mount gets them after its first uses.
"""

import re
import uuid
from pathlib import Path

import pytest

SQL = Path(__file__).resolve().parent.parent / 'sql'
QUERIES = sorted((SQL / 'queries').glob('*.sql'))
CLAIMS = {path.stem: match[1] for path in QUERIES
          if (match := re.match(r'-- index: (\w+)\n', path.read_text()))}

TABLES = ('users user_profiles course_categories courses course_modules course_lessons enrollments lesson_progress '
          'course_reviews payment_methods transactions invoices change_log').split()
# A row, or a dozen, each: their constraints are there to be true, no plan would read them by an index.
TINY = {'shard', 'regions', 'collections', 'indexed_fields', 'schema_version', 'seed_log'}
REGIONS = {1: ('north_america', False), 2: ('south_america', False), 3: ('europe', True), 4: ('africa', True)}
LOCAL = [number for number, (_, local) in REGIONS.items() if local]
SHARD = 2
DOCUMENTS = {'users': 'users', 'courses': 'courses', 'enrollments': 'enrollments', 'reviews': 'course_reviews',
             'payment_methods': 'payment_methods', 'transactions': 'transactions', 'invoices': 'invoices'}

# What to insert for i from {base} on, a region's first id. A status that is rare in life is one row's in ten or a hundred.
PEOPLE = 10000
FILL = [
    ('users', PEOPLE, """
     (region, id, email, username, first_name, last_name, role, status, created_at)
     SELECT {r}, i, 'user' || i || '@example.org', 'user' || i, md5(i::text), md5((i * 7)::text),
            CASE WHEN i % 20 = 0 THEN 'instructor' ELSE 'student' END,
            CASE WHEN i % 100 = 0 THEN 'suspended' ELSE 'active' END,
            timestamptz '2020-01-01' + i % 9999 * interval '1 hour'"""),
    ('user_profiles', PEOPLE, """
     (region, user_id, country, city) SELECT {r}, i, chr(65 + i % 26) || chr(65 + i / 26 % 26), 'City ' || i % 500"""),
    ('user_credentials', PEOPLE, """
     (region, user_id, password_hash) SELECT {r}, i, '$2a$04$' || repeat('a', 53)"""),
    ('courses', PEOPLE // 3, """
     (region, id, instructor_id, category_id, title, slug, status, rating_sum, rating_count, published_at)
     SELECT {r}, i, {base} + i % 100 * 20, 1 + i % 900, 'Course ' || md5(i::text), 'course-' || i,
            (ARRAY['published', 'published', 'published', 'draft', 'archived'])[1 + i % 5], i % 5 + 1, 1,
            timestamptz '2020-01-01' + i % 999 * interval '1 day'"""),
    ('course_modules', PEOPLE * 2 // 3, """
     (id, course_id, position, title) SELECT i, {base} + (i - {base}) / 2, 1 + i % 2, 'Module ' || i"""),
    ('course_lessons', PEOPLE * 4 // 3, """
     (id, module_id, position, title, media)
     SELECT i, {base} + (i - {base}) / 2, 1 + i % 2, 'Lesson ' || i,
            CASE WHEN i % 2 = 0 THEN 'video/' || i || '.mp4' END"""),
    ('enrollments', PEOPLE * 2, """
     (region, id, user_id, course_id, status, enrolled_at, completed_at)
     SELECT {r}, i, {base} + (i - {base}) / 2, {base} + (i * 7) % {courses},
            CASE i % 10 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'completed' ELSE 'active' END,
            timestamptz '2020-01-01' + i % 9999 * interval '1 hour',
            CASE WHEN i % 10 = 1 THEN timestamptz '2021-01-01' + i % 9999 * interval '1 hour' END"""),
    ('lesson_progress', PEOPLE * 6, """
     (enrollment_id, lesson_id, status)
     SELECT {base} + (i - {base}) / 3, {base} + (i * 7) % {lessons},
            CASE WHEN i % 3 = 0 THEN 'completed' ELSE 'in_progress' END"""),
    ('course_reviews', PEOPLE, """
     (region, id, user_id, course_id, rating, title, created_at)
     SELECT {r}, i, i, {base} + (i * 7) % {courses}, CASE WHEN i % 20 = 0 THEN 1 ELSE 4 END, 'Title ' || i,
            timestamptz '2020-01-01' + i % 9999 * interval '1 hour'"""),
    ('payment_methods', PEOPLE, """
     (region, id, user_id, token, expires_on, is_default)
     SELECT {r}, i, {base} + (i - {base}) / 2, 'tok_' || i, date '2025-01-01' + i % 3000, i % 2 = 0"""),
    ('transactions', PEOPLE * 2, """
     (region, id, user_id, course_id, payment_method_id, amount, status, gateway, gateway_reference, created_at)
     SELECT {r}, i, {base} + (i - {base}) / 2, {base} + (i * 7) % {courses}, CASE WHEN i % 2 = 0 THEN i END, 49.90,
            CASE i % 100 WHEN 0 THEN 'pending' WHEN 1 THEN 'failed' WHEN 2 THEN 'refunded' ELSE 'completed' END,
            'stripe', 'ch_' || i, timestamptz '2020-01-01' + i % 9999 * interval '1 hour'"""),
    ('invoices', PEOPLE, """
     (region, id, transaction_id, number, status, issued_on, due_on, subtotal)
     SELECT {r}, i, {base} + 2 * (i - {base}), 'INV-' || i, CASE WHEN i % 20 = 0 THEN 'issued' ELSE 'paid' END,
            date '2020-01-01' + i % 999, date '2020-01-15' + i % 999, 49.90"""),
    ('change_log', PEOPLE * 2, """
     (xid, collection, region, row_id, operation, rev, actor, changed_at)
     SELECT i::text::xid8, 1 + i % 8, {r}, {base} + (i - {base}) / 2, 'update', i, 'campusfs_rw',
            timestamptz '2020-01-01' + i * interval '1 second'"""),
    ('request_log', PEOPLE, """
     (request_id, outcome, created_at)
     SELECT gen_random_uuid(), 'committed', timestamptz '2020-01-01' + i * interval '1 second'"""),
    ('id_claims', PEOPLE // 3, """
     (collection, id, shard) SELECT 1 + i % 8, i, 3"""),
    ('deleted_rows', PEOPLE, """
     (collection, region, id, rev, created_at, updated_at, content_at, user_id, body, parts, actor, deleted_at)
     SELECT 1 + i % 7, {r}, i, i, '2026-01-01', '2026-01-01', '2026-01-01', {base} + (i - {base}) / 2,
            '{{"id":' || i || ',"region":"old"}}', '{{}}', 'campusfs_rw',
            clock_timestamp() - (i - {base}) * interval '1 second'"""),
    ('transfers', PEOPLE, """
     (id, outcome, actor, finished_at)
     SELECT gen_random_uuid(), 'void', 'campusfs_rw', clock_timestamp() - (i - {base}) * interval '1 second'"""),
]
CATEGORIES = """INSERT INTO course_categories (id, parent_id, name, slug)
    SELECT i, CASE WHEN i > 40 THEN 1 + i % 40 END, 'Category ' || i, 'category-' || i FROM generate_series(1, 900) i"""


def apply_schema(cursor):
    """What init does, in its order."""
    cursor.execute(f"SET campusfs.shard_number = '{SHARD}'")
    for path in sorted((SQL / 'migrations').glob('*.sql')):
        cursor.execute(path.read_text())
    for number, (name, local) in REGIONS.items():
        cursor.execute('INSERT INTO campusfs.regions VALUES (%s, %s, %s)', (number, name, local))
    for path in sorted((SQL / 'code').glob('*.sql')):
        cursor.execute(path.read_text())


def fill(cursor):
    """Rows by their own statements: triggers and foreign keys would cost more than they could show here."""
    cursor.execute('SET session_replication_role = replica')
    cursor.execute(CATEGORIES)
    for region in LOCAL:
        base = region * 1000000
        names = {'r': region, 'base': base, 'courses': PEOPLE // 3, 'lessons': PEOPLE * 4 // 3}
        for table, count, text in FILL:
            cursor.execute(f'INSERT INTO {table} {text.format(**names)} '
                           f'FROM generate_series({base}, {base + count - 1}) i')
    cursor.execute('RESET session_replication_role')


@pytest.fixture(scope='module')
def filled(cluster):
    """A cursor on a database of this module: the whole schema, large enough tables."""
    name = f'plans_{uuid.uuid4().hex[:8]}'
    server = cluster.connect('europe', database='postgres')
    server.cursor().execute(f'CREATE DATABASE {name}')
    connection = cluster.connect('europe', database=name, options='-c search_path=campusfs,pg_catalog,pg_temp '
                                 '-c plan_cache_mode=force_generic_plan -c client_min_messages=warning -c jit=off')
    try:
        with connection.cursor() as cursor:
            connection.autocommit = False
            apply_schema(cursor)
            fill(cursor)
            connection.commit()
            connection.autocommit = True
            cursor.execute('VACUUM ANALYZE')
            yield cursor
    finally:
        connection.close()
        server.cursor().execute(f'DROP DATABASE {name} WITH (FORCE)')
        server.close()


def nodes(plan, skipped=()):
    """All nodes of a plan, but for the branches whose relation to their parent is among those skipped."""
    yield plan
    for below in plan.get('Plans', ()):
        if below['Parent Relationship'] not in skipped:
            yield from nodes(below, skipped)


def explain(cursor, name, arguments=None, options='COSTS off'):
    """The plan of a named query: a generic one; with arguments it is run, too."""
    cursor.execute('DEALLOCATE ALL')
    cursor.execute(f'PREPARE query AS {(SQL / "queries" / f"{name}.sql").read_text()}')
    cursor.execute('SELECT cardinality(parameter_types) FROM pg_prepared_statements')
    count, = cursor.fetchone()
    given = arguments or ['NULL'] * count
    assert len(given) == count
    call = f'({", ".join(map(str, given))})' if count else ''
    cursor.execute(f'EXPLAIN (FORMAT json, {options}) EXECUTE query{call}')
    return cursor.fetchone()[0][0]['Plan']


# ---- indexes and queries

@pytest.mark.parametrize('name', CLAIMS)
def test_query_uses_its_index(filled, name):
    plan = explain(filled, name)
    used = [(node['Node Type'], node.get('Index Name')) for node in nodes(plan)]
    assert CLAIMS[name] in [index for _, index in used], used


def all_indexes(cursor):
    cursor.execute("""SELECT c.relname, t.relname FROM pg_index i
                      JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
                      WHERE t.relnamespace = 'campusfs'::regnamespace AND t.relkind = 'r'""")
    return dict(cursor.fetchall())


def test_each_index_has_a_query(filled):
    indexes = all_indexes(filled)
    assert len(set(CLAIMS.values())) >= 40
    assert set(CLAIMS.values()) <= set(indexes), 'a query names an index that is not there'
    unclaimed = {index for index, table in indexes.items() if table not in TINY} - set(CLAIMS.values())
    assert not unclaimed


def test_no_index_is_the_beginning_of_another(filled):
    """Such a one costs every write and serves nobody, unless it is unique or partial."""
    filled.execute("""SELECT a.indexrelid::regclass::text, b.indexrelid::regclass::text FROM pg_index a JOIN pg_index b
                      ON a.indrelid = b.indrelid AND a.indexrelid <> b.indexrelid
                      JOIN pg_class c ON c.oid = a.indrelid AND c.relnamespace = 'campusfs'::regnamespace
                      WHERE NOT a.indisunique AND a.indpred IS NULL AND b.indpred IS NULL
                        AND a.indexprs IS NULL AND b.indexprs IS NULL AND a.indnkeyatts <= b.indnkeyatts
                        AND a.indkey::text = array_to_string((b.indkey::int2[])[0:a.indnkeyatts - 1], ' ')""")
    assert filled.fetchall() == []


def test_foreign_keys_can_be_followed_back(filled):
    """Who deletes or moves a row looks for what refers to it: never by reading a whole table."""
    filled.execute("""SELECT f.conrelid::regclass::text, f.conname FROM pg_constraint f
                      WHERE f.contype = 'f' AND f.connamespace = 'campusfs'::regnamespace
                        AND f.confrelid <> 'campusfs.regions'::regclass
                        AND NOT EXISTS (
                            SELECT FROM pg_index i WHERE i.indrelid = f.conrelid
                              AND (i.indkey::int2[])[0] = ANY (f.conkey)
                              AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) LIKE '%IS NOT NULL%'))""")
    assert filled.fetchall() == []


# ---- pages of folders

@pytest.mark.parametrize('name, table', DOCUMENTS.items())
def test_a_page_is_a_range_of_the_primary_key(filled, name, table):
    region = LOCAL[-1]
    filled.execute(f'SELECT max(id) - 500 FROM {table} WHERE region = {region}')
    last, = filled.fetchone()
    plan = explain(filled, f'{name}_page', [region, last, 100], 'ANALYZE, BUFFERS, COSTS off, TIMING off')
    way = list(nodes(plan, skipped=('SubPlan', 'InitPlan')))
    assert not [node for node in way if node['Node Type'] in ('Sort', 'Incremental Sort', 'Hash', 'Seq Scan')
                and node.get('Relation Name') != 'regions'], way
    key, = [node for node in way if node.get('Index Name') == f'{table}_pkey']
    assert key['Scan Direction'] == 'Forward' and 'ROW(region, id) >' in re.sub(r'\b\w+\.', '', key['Index Cond'])
    assert key.get('Rows Removed by Filter', 0) == 0
    assert plan['Actual Rows'] == 100 and key['Actual Rows'] <= 101, 'it reads what it shows'


def blocks(node):
    return node['Shared Hit Blocks'] + node['Shared Read Blocks']


@pytest.mark.parametrize('name, table', DOCUMENTS.items())
def test_the_last_page_costs_what_the_first_does(filled, name, table):
    """With `region = $1` the scan would begin at the first row, and read the index of all that was shown before."""
    filled.execute(f'SELECT min(id) - 1, max(id) - 100 FROM {table} WHERE region = {LOCAL[-1]}')
    cost = []
    for last in filled.fetchone():
        plan = explain(filled, f'{name}_page', [LOCAL[-1], last, 100], 'ANALYZE, BUFFERS, COSTS off, TIMING off')
        way = nodes(plan, skipped=('SubPlan', 'InitPlan'))
        key, = [node for node in way if node.get('Index Name') == f'{table}_pkey']
        cost.append(blocks(key) - sum(blocks(part) for part in key.get('Plans', ())))
    assert cost[1] <= cost[0] + 5, cost


@pytest.mark.parametrize('name, table', DOCUMENTS.items())
@pytest.mark.parametrize('condition, count', [('id = 3000007', 1), ('id = ANY (ARRAY[3000007, 3000011]::bigint[])', 2)])
def test_documents_are_found_by_their_key(filled, name, table, condition, count):
    filled.execute('EXPLAIN (FORMAT json, ANALYZE, COSTS off, TIMING off) '
                   f'SELECT body FROM doc_{name} WHERE region = 3 AND {condition}')
    plan = filled.fetchone()[0][0]['Plan']
    used = [node['Index Name'] for node in nodes(plan, skipped=('SubPlan', 'InitPlan')) if 'Index Name' in node]
    assert f'{table}_pkey' in used or f'{table}_id_key' in used, plan
    assert plan['Actual Rows'] == count
    assert not [node for node in nodes(plan) if node.get('Rows Removed by Filter', 0) > len(REGIONS)], plan


# ---- rows by a value (code/21_by.sql)

def by_plan(cursor, function, *values):
    """The nodes of the plan of what by_values() or by_rows() executes, run: with constants, as EXECUTE … USING has them."""
    cursor.execute('SET enable_seqscan = off')
    cursor.execute(f'SELECT {function}')
    text, = cursor.fetchone()
    for n, value in reversed(list(enumerate(values, 1))):
        text = text.replace(f'${n}', cursor.mogrify('%s', (value,)).decode())
    try:
        cursor.execute(f'EXPLAIN (FORMAT json, ANALYZE, COSTS off, TIMING off) {text}')
        return list(nodes(cursor.fetchone()[0][0]['Plan']))
    finally:
        cursor.execute('RESET enable_seqscan')


def rows_read(way, table):
    return sum(node['Actual Loops'] * (node['Actual Rows'] + node.get('Rows Removed by Filter', 0)) for node in way
               if node.get('Relation Name') == table)


def test_each_field_is_listed_and_found_by_an_index(filled):
    """From anywhere on. A page of a hundred values reads a few rows of each, one of a hundred rows no
    more than some thousands, whatever the value."""
    filled.execute('SELECT collection, number, name, table_name, column_name, choices FROM indexed_fields')
    fields = filled.fetchall()
    assert len(fields) == 27
    for collection, number, name, table, column, choices in fields:
        region = 0 if table == 'course_categories' else LOCAL[0]
        row = f'(SELECT f FROM indexed_fields f WHERE collection = {collection} AND number = {number})'
        filled.execute(f'SELECT {column}::text FROM {table} WHERE region = {region} AND {column} IS NOT NULL '
                       f'ORDER BY {column} OFFSET 400 LIMIT 1')
        (value,), = filled.fetchall()
        for first in (True, False) if choices is None else ():
            way = by_plan(filled, f'by_values_text({row}, {first})', region, value, 100)
            assert not {node['Node Type'] for node in way} & {'Sort', 'Incremental Sort', 'Seq Scan', 'Hash'}, (name, way)
            assert 0 < rows_read(way, table) <= 410, (table, name, first, rows_read(way, table))
        way = by_plan(filled, f'by_rows_text({row})', region, value, 0, 100)
        assert 'Seq Scan' not in {node['Node Type'] for node in way}, (name, way)
        assert 0 < rows_read(way, table) <= 3000, (table, name, value, rows_read(way, table))


@pytest.mark.parametrize('table, column, value, most', [
    ('users', 'status', 'active', 110), ('users', 'status', 'suspended', 110), ('users', 'role', 'student', 120),
    ('users', 'role', 'instructor', 110), ('enrollments', 'status', 'active', 150), ('users', 'status', 'deleted', 0),
    ('enrollments', 'status', 'cancelled', 1100), ('transactions', 'status', 'completed', 110)])
def test_a_value_that_many_rows_have_is_paged_by_key(filled, table, column, value, most):
    """In the middle of a folder: what was shown before is not read again, and what follows is not sorted."""
    filled.execute(f'SELECT id FROM {table} WHERE region = {LOCAL[1]} ORDER BY id OFFSET (SELECT count(*) FROM {table}) / 4 '
                   'LIMIT 1')
    middle, = filled.fetchone()
    row = f"(SELECT f FROM indexed_fields f WHERE table_name = '{table}' AND name = '{column}')"
    way = by_plan(filled, f'by_rows_text({row})', LOCAL[1], value, middle, 100)
    assert rows_read(way, table) <= most, way


def test_choices_are_those_of_the_columns_check(filled):
    filled.execute(r"""SELECT f.table_name, f.column_name, f.choices, (SELECT array_agg(m[1] ORDER BY m[1])
                          FROM pg_constraint c, regexp_matches(pg_get_constraintdef(c.oid), $r$'(\w+)'::text$r$, 'g') m
                          WHERE c.conrelid = f.table_name::text::regclass AND c.contype = 'c'
                            AND c.conkey = ARRAY[a.attnum])
                       FROM indexed_fields f JOIN pg_attribute a ON a.attrelid = f.table_name::text::regclass
                                                               AND a.attname = f.column_name
                       WHERE f.choices IS NOT NULL""")
    found = filled.fetchall()
    assert len(found) == 6 and all(choices == allowed for _, _, choices, allowed in found), found


# ---- the schema as a whole

def test_the_tables_are_there_and_say_what_they_are_for(filled):
    filled.execute("""SELECT c.relname, a.attname FROM pg_class c
                      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0 AND NOT a.attisdropped
                      WHERE c.relnamespace = 'campusfs'::regnamespace AND c.relkind = 'r'
                        AND col_description(c.oid, a.attnum) IS NULL AND a.attnum > 0
                      UNION ALL
                      SELECT relname, NULL FROM pg_class
                      WHERE relnamespace = 'campusfs'::regnamespace AND relkind IN ('r', 'v', 'S')
                        AND obj_description(oid, 'pg_class') IS NULL
                        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'i')""")
    assert filled.fetchall() == []
    filled.execute("SELECT relname FROM pg_class WHERE relnamespace = 'campusfs'::regnamespace AND relkind = 'r'")
    assert set(TABLES) <= {name for name, in filled.fetchall()}


def test_every_routine_is_described_and_none_is_left_open(filled):
    filled.execute("""SELECT p.oid::regprocedure::text FROM pg_proc p
                      WHERE pronamespace = 'campusfs'::regnamespace
                        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
                        AND (obj_description(p.oid, 'pg_proc') IS NULL
                             OR has_function_privilege('public', p.oid, 'EXECUTE')
                             OR prosecdef AND coalesce(proconfig::text, '') NOT LIKE '%search_path=%pg_temp%')""")
    assert filled.fetchall() == []


def test_triggers_keep_what_is_derived(filled):
    filled.execute("""SELECT DISTINCT t.tgname, t.tgrelid::regclass::text FROM pg_trigger t
                      JOIN pg_class c ON c.oid = t.tgrelid AND c.relnamespace = 'campusfs'::regnamespace
                      WHERE NOT t.tgisinternal""")
    triggers = filled.fetchall()
    assert len({name for name, _ in triggers}) >= 5
    watched = {table for _, table in triggers}
    assert set(TABLES) - {'change_log'} <= watched, 'no document changes without its clocks and the log'
