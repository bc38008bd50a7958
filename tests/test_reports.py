""".campusfs/reports: the figures of all shards added up, exactly, and said to be partial where a shard did not answer."""

import concurrent.futures
import json
import os
import re
import signal
import threading
import time
import uuid
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from cluster import SHARDS
from mount_tools import entries, errno_of, errors_of, wait_for
from people import Person, ask, new_course

TIMEOUT = 3
SLACK = 20  # seconds that a busy machine may add: a frozen server and a lock never answer
NAMES = ['completion_funnel', 'course_statistics', 'platform_overview', 'revenue_by_month', 'top_courses']
HOMES = {'americas': 'south_america', 'emea': 'europe', 'apac': 'asia'}  # a region of each shard
AMOUNTS = ['0.10', '0.20', '9999999999.99']  # of the payments in each: no sum of doubles is their sum


@pytest.fixture(scope='module')
def own(frail):
    """With a course, students and some payments on each shard, and nothing else."""
    for shard in SHARDS:
        ask(frail, shard, 'TRUNCATE users, courses CASCADE')
    for number, region in enumerate(HOMES.values()):
        fill(frail, region, number)
    return frail


def fill(own, region, number):
    teacher = Person(own, region, methods=0)
    course = new_course(teacher, region)
    for n in range(2 + number):  # no two courses have as many students
        student = Person(own, region)
        student.put(region, 'enrollments', {'user_id': student.id, 'course_id': course,
                                            'status': 'completed' if n == 0 else 'active'})
        student.put(region, 'reviews', {'user_id': student.id, 'course_id': course, 'rating': 5 - n})
    for n, amount in enumerate(AMOUNTS):
        document = {'user_id': student.id, 'course_id': course, 'currency': 'EUR', 'gateway': 'stripe',
                    'gateway_reference': uuid.uuid4().hex, 'status': 'refunded' if n == 0 else 'completed', 'amount': 7}
        ask(own, region, 'SELECT * FROM put_transactions(%s::smallint, NULL, %s, NULL, NULL, true, NULL, NULL)', (
            SHARDS[[shard for shard in HOMES if HOMES[shard] == region][0]][1][region],
            json.dumps(document).replace('"amount": 7', f'"amount": {amount}')))


@pytest.fixture(scope='module')
def running(own):
    config = own.write_config(own.directory / 'reports.conf', timeout=f'{TIMEOUT}s')
    mount = own.mount(own.directory / 'mnt-reports', config=config)
    yield mount
    own.thaw()
    own.mounts.remove(mount)
    assert mount.stop() == 0


@pytest.fixture
def reports(own, running):
    own.start()
    folder = running.directory / '.campusfs/reports'
    assert wait_for(lambda: not report(folder, 'top_courses')['partial'], 30)
    yield folder
    own.thaw()


def report(folder, name):
    """A report that was begun just now, with its numbers as they are written; one of a second ago is given again."""
    begun = datetime.now(timezone.utc)

    def new():
        read = json.loads((folder / f'{name}.json').read_text(), parse_float=Decimal)
        return read if datetime.fromisoformat(read['generated_at'].replace('Z', '+00:00')) >= begun else None
    return wait_for(new, 60, 0.05)


def test_the_names_are_listed_and_nothing_else_is_there(reports):
    assert [(entry.name, entry.type) for entry in entries(reports)] == [(f'{name}.json', 'file') for name in NAMES]
    listed = {entry.name: entry for entry in entries(reports.parent)}
    assert listed['reports'].type == 'folder' and 'reports' not in os.listdir(reports.parent.parent)
    for entry in entries(reports):
        assert os.stat(reports / entry.name).st_ino == entry.ino
    assert errno_of((reports / 'users.json').stat) == 'ENOENT' and errno_of((reports / 'top_courses').stat) == 'ENOENT'
    for call in (lambda: (reports / 'new.json').write_text('{}'), (reports / 'top_courses.json').unlink,
                 lambda: (reports / 'folder').mkdir(), lambda: (reports / 'top_courses.json').write_text('{}')):
        assert errno_of(call) in ('EPERM', 'EACCES')


@pytest.mark.parametrize('name', NAMES)
def test_a_report_is_a_canonical_document_of_its_exact_size(reports, name):
    with open(reports / f'{name}.json', 'rb') as file:
        size, text = os.fstat(file.fileno()).st_size, file.read()
    assert size == len(text) and os.stat(reports / f'{name}.json').st_mode & 0o222 == 0
    document = json.loads(text, object_pairs_hook=lambda pairs: {**dict(pairs), '': [key for key, _ in pairs]})
    assert document[''] == ['report', 'generated_at', 'partial', 'shards', 'data']
    assert (document['report'], document['partial']) == (name, False)
    assert [(shard['name'], shard['answered'], shard['error']) for shard in document['shards']] == [
        (shard, True, None) for shard in SHARDS]
    laid_out = re.sub(rb'-?\d+\.\d+', b'0', text)  # jq 1.6 may print numbers another way
    assert laid_out == (json.dumps(json.loads(laid_out), indent=2, ensure_ascii=False) + '\n').encode()


def test_who_reads_twice_within_a_second_reads_the_same(reports):
    report(reports, 'top_courses')
    path = reports / 'top_courses.json'
    assert wait_for(lambda: path.read_bytes() == path.read_bytes(), 30)


def test_money_is_added_up_exactly(reports):
    data = report(reports, 'revenue_by_month')['data']
    (month,) = data['months']
    gross = 3 * sum(map(Decimal, AMOUNTS))
    assert month == {'month': data['to'][:8] + '01', 'currency': 'EUR', 'payments': 9, 'gross': gross, 'refunds': 3,
                     'refunded': Decimal('0.30'), 'net': gross - Decimal('0.30')}
    text = (reports / 'revenue_by_month.json').read_text()
    assert '"gross": 30000000000.87,' in text and '"refunded": 0.30,' in text
    (revenue,) = report(reports, 'platform_overview')['data']['revenue']
    assert (revenue['gross'], revenue['net_last_30_days']) == (gross, gross - Decimal('0.30'))


def test_lists_are_cut_out_of_all_shards(reports):
    top = report(reports, 'top_courses')['data']
    assert [(course['place'], course['region'], course['enrollment_count']) for course in top] == [
        (1, 'asia', 4), (2, 'europe', 3), (3, 'south_america', 2)]
    statistics = report(reports, 'course_statistics')['data']
    assert [course['course_id'] for course in statistics] == [course['course_id'] for course in top]
    assert [course['completed'] for course in statistics] == [1, 1, 1]
    assert statistics[0]['revenue'][0]['gross'] == sum(map(Decimal, AMOUNTS))


def test_rates_are_computed_of_sums(reports):
    data = report(reports, 'platform_overview')['data']
    stars = [5, 4, 5, 4, 3, 5, 4, 3, 2]  # of 2, 3 and 4 students
    assert data['courses']['average_rating'] == round(Decimal(sum(stars)) / len(stars), 2)
    assert data['users']['total'] == 3 + 9 == sum(data['users']['by_region'].values())
    assert set(data['users']['by_region']) == {region for _, regions in SHARDS.values() for region in regions}
    assert data['enrollments']['completion_rate'] == Decimal('33.33')
    funnel = report(reports, 'completion_funnel')['data']
    assert [step['students'] for step in funnel] == [9, 3, 3, 3, 3, 3]
    assert funnel[-1] == {'step': 6, 'reached': 'completed', 'students': 3, 'percent': Decimal('33.33')}


def test_a_frozen_shard_is_named_and_the_others_are_there(own, reports):
    own.primary('emea').freeze()
    begun = time.monotonic()
    partial = report(reports, 'platform_overview')
    assert time.monotonic() - begun < TIMEOUT + SLACK
    assert partial['partial'] is True
    said = {shard['name']: (shard['answered'], shard['error']) for shard in partial['shards']}
    assert said['americas'] == said['apac'] == (True, None)
    assert said['emea'][0] is False and 'emea' in said['emea'][1]
    assert partial['data']['users']['total'] == 3 + 5 and 'europe' not in partial['data']['users']['by_region']
    assert [course['region'] for course in report(reports, 'top_courses')['data']] == ['asia', 'south_america']
    own.thaw()
    assert wait_for(lambda: not report(reports, 'top_courses')['partial'], 30)


def test_where_the_first_shard_cannot_merge_the_next_one_does(own, reports):
    ask(own, 'americas', 'ALTER FUNCTION merge_platform_overview(jsonb) RENAME TO merge_nothing')
    try:
        merged = report(reports, 'platform_overview')
        assert merged['partial'] is False and merged['data']['users']['total'] == 3 + 4 + 5
    finally:
        ask(own, 'americas', 'ALTER FUNCTION merge_nothing(jsonb) RENAME TO merge_platform_overview')


def test_a_shard_that_is_slow_is_given_up(own, reports):
    """Its answer is not waited for beyond its share of the time, which is nobody else's; what it did is cancelled."""
    with own.connect('south_america') as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute('LOCK TABLE campusfs.invoices IN ACCESS EXCLUSIVE MODE')
            begun = time.monotonic()
            partial = report(reports, 'platform_overview')
            assert time.monotonic() - begun < TIMEOUT + SLACK
        assert [shard['name'] for shard in partial['shards'] if not shard['answered']] == ['americas']
        connection.rollback()


@pytest.mark.long
def test_a_shard_whose_server_processes_stand_still_is_given_up(own, reports):
    """Its own limits cannot end what they do, and those who watch it find nothing wrong."""
    ours = """SELECT pid FROM pg_stat_activity WHERE usename = 'campusfs_rw' AND query NOT LIKE '-- What a node is%'
              AND query NOT LIKE '%campusfs.schema_version%'"""
    stopped = [pid for node in own.nodes_of('south_america') for pid, in ask(own, node, ours)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        partial = report(reports, 'platform_overview')
        assert [shard['name'] for shard in partial['shards'] if not shard['answered']] == ['americas']
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.long
def test_no_shard_at_all_is_an_error_in_words(own, reports):
    for shard in SHARDS:
        own.primary(shard).freeze()
    begun = time.monotonic()
    assert errno_of((reports / 'completion_funnel.json').read_text) == 'EIO'
    assert time.monotonic() - begun < TIMEOUT + SLACK
    own.thaw()
    assert wait_for(lambda: not report(reports, 'top_courses')['partial'], 30)
    assert 'no shard answered' in errors_of(reports.parent.parent, '.campusfs/reports/completion_funnel.json')[-1]['message']


def test_who_reads_while_it_is_made_waits_for_it(own, reports):
    """One of them has it made, and all read it, which so many at once could not have made."""
    report(reports, 'course_statistics')  # a name that the kernel knows it asks for at once
    time.sleep(1.2)  # what was made before is no longer given again
    own.primary('emea').freeze()
    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        texts = list(threads.map(lambda _: (reports / 'course_statistics.json').read_bytes(), range(10)))
    assert len(set(texts)) < 5
    own.thaw()
    assert wait_for(lambda: not report(reports, 'top_courses')['partial'], 30)


def test_so_many_at_once_and_no_more(own, reports):
    for name in NAMES:  # names that the kernel knows it asks for at once, others one after the other
        report(reports, name)
    time.sleep(1.2)  # what was made before is no longer given again
    own.primary('emea').freeze()
    results = []
    readers = [threading.Thread(target=lambda name=name: results.append(errno_of((reports / f'{name}.json').read_text)))
               for name in NAMES]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sorted(results, key=str) == ['EAGAIN', None, None, None, None]
    own.thaw()
    assert wait_for(lambda: not report(reports, 'top_courses')['partial'], 30)
