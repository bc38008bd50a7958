"""Media: a mount beside a plain client of the same MongoDB server, which has the same chunks and asks in the same way."""

import contextlib
import datetime
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from report import Line
from works import WorkError, expect, run, shell

MIB = 1 << 20
CHUNK = 255 * 1024
REGION = 'europe'
FIRST_FILES = 50
FIRST_SIZE = 300 * 1024
DESCRIBED_AT_ONCE = 256
SEQUENTIAL_GOAL = 0.9
MEMORY_GOAL_MIB = 128
UPLOADS = 8
SECTION = 'media'


def noise(mib):
    """That many MiB which no server makes smaller, one after the other."""
    block = random.Random(1).randbytes(MIB)
    for n in range(mib):
        yield n.to_bytes(8, 'little') + block[8:]


def write_file(path, mib):
    """Seconds from open to the end of close, which publishes."""
    blocks = list(noise(min(mib, 16)))
    started = time.perf_counter()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for n in range(mib):
            expect('write', os.write(fd, blocks[n % len(blocks)]), MIB)
    finally:
        os.close(fd)
    return time.perf_counter() - started


def read_file(path, mib):
    """Seconds from open to the end of the file."""
    buffer, total = bytearray(MIB), 0
    started = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    try:
        while n := os.readv(fd, [buffer]):
            total += n
    finally:
        os.close(fd)
    seconds = time.perf_counter() - started
    expect('bytes read', total, mib * MIB)
    return seconds


def read_at_random(path, times):
    """Seconds of `times` reads of 4 KiB, each of another chunk as far as there are so many."""
    chunks = path.stat().st_size // CHUNK
    order = random.Random(1).sample(range(chunks), min(times, chunks))
    with open(path, 'rb', buffering=0) as file:
        started = time.perf_counter()
        for n in order:
            expect('bytes read', len(os.pread(file.fileno(), 4096, (n * CHUNK + 4095) // 4096 * 4096)), 4096)
        return (time.perf_counter() - started) / len(order)


def read_first_bytes(folder):
    """The median of the seconds that open and a read of one byte take, of files that nobody has read."""
    took = []
    for n in range(FIRST_FILES):
        started = time.perf_counter()
        fd = os.open(folder / f'first-{n}', os.O_RDONLY)
        expect('bytes read', len(os.read(fd, 1)), 1)
        took.append(time.perf_counter() - started)
        os.close(fd)
    return sorted(took)[len(took) // 2]


class Media:
    """The works of one run; `subject` is a Campusfs of a cluster with MongoDB, whose first European course is used."""

    def __init__(self, cluster, programs, subject, samples, *, quick, repetitions):
        self.cluster = cluster
        self.programs = programs
        self.subject = subject
        self.samples = samples
        self.repetitions = repetitions
        self.mib = 128 if quick else 1024
        self.files = 10000 if quick else 50000
        self.described = self.files // 10
        self.reads = 300 if quick else 2000
        self.course = None
        self.uploads = None  # what many writers at once take

    @contextlib.contextmanager
    def fresh(self):
        """The course's folder in a mount of which nothing is cached, its names but read."""
        with self.subject.fresh():
            media = self.subject.mountpoint / 'regions' / REGION / 'media'
            self.course = self.course or sorted(path.name for path in media.iterdir())[0]
            os.listdir(media / self.course)
            yield media / self.course

    def raw(self, *arguments):
        _, output = run([self.programs.raw_mongo, self.cluster.mongodb.uri, f'media_{REGION}', *arguments])
        return json.loads(output)

    def both(self, repetition, raw, mounted):
        """The two in turn, so that none always follows the other."""
        for call in (raw, mounted) if repetition % 2 == 0 else (mounted, raw):
            call()

    def add(self, key, value):
        subject, work = key.split(' ', 1)
        self.samples.add(SECTION, subject, work, value)

    def write(self, repetition):
        def mounted():
            with self.fresh() as folder:
                self.add('campusfs write', self.mib / write_file(folder / f'film-{repetition}', self.mib))
        self.both(repetition, lambda: self.add('raw write', self.mib / self.raw('write', self.mib)['seconds']), mounted)

    def read(self, repetition):
        name = f'{self.course}/film-0'

        def raw():
            self.add('raw read', self.mib / self.raw('read', name)['seconds'])
            done = self.raw('random', name, self.reads)
            self.add('raw random', done['count'] / done['seconds'])
            self.add('raw first', self.raw('first', f'{self.course}/first', FIRST_FILES)['p50_us'] / 1e6)

        def mounted():
            with self.fresh() as folder:
                self.add('campusfs read', self.mib / read_file(folder / 'film-0', self.mib))
            with self.fresh() as folder:
                self.add('campusfs random', 1 / read_at_random(folder / 'film-0', self.reads))
                self.add('campusfs first', read_first_bytes(folder))
        self.both(repetition, raw, mounted)

    def list(self, repetition):
        def mounted():
            with self.subject.fresh():
                folder = self.subject.mountpoint / 'regions' / REGION / 'media' / self.course / 'many'
                for state in ('cold', 'warm'):
                    seconds, output = shell('ls -l "$1" | wc -l', folder)
                    expect('ls -l, lines', int(output), self.files + 1)
                    self.add(f'campusfs list {state}', seconds)
        self.both(repetition, lambda: self.add('raw list', self.raw('list')['seconds']), mounted)

    def describe(self, repetition):
        """What .meta says of files, all at once."""
        def raw():
            with self.cluster.mongodb.client() as client:
                files = client['campusfs'][f'media_{REGION}.files']
                path = f'{self.course}/described/'
                ids = [file['_id'] for file in files.find({'filename': {'$gt': path, '$lt': path[:-1] + '0'}}, {'_id': 1})]
                started = time.perf_counter()
                found = sum(len(list(files.find({'_id': {'$in': ids[at:at + DESCRIBED_AT_ONCE]}})))
                            for at in range(0, len(ids), DESCRIBED_AT_ONCE))
                self.add('raw meta', time.perf_counter() - started)
                expect('documents', found, self.described)

        def mounted():
            with self.fresh() as folder:
                os.listdir(folder / 'described')
                seconds, output = shell('ls -l "$1" | wc -l', folder / 'described/.meta')
                expect('ls -l, lines', int(output), 2 * self.described + 1)
                self.add('campusfs meta', seconds)
        self.both(repetition, raw, mounted)

    def fill(self):
        """What is read: small files, by the mount."""
        with self.fresh() as folder:
            for n in range(FIRST_FILES):
                (folder / f'first-{n}').write_bytes(os.urandom(FIRST_SIZE))

    def fill_many(self):
        """As another driver does it: documents of files that nobody will read."""
        now = datetime.datetime.now(datetime.timezone.utc)
        with self.cluster.mongodb.client() as client:
            files = client['campusfs'][f'media_{REGION}.files']
            for first in range(0, self.files, 1000):
                files.insert_many([{'filename': f'{self.course}/many/slide-{n:06}.png', 'length': 40000 + n,
                                    'chunkSize': CHUNK, 'uploadDate': now} for n in range(first, first + 1000)])
            files.insert_many([{'filename': f'{self.course}/described/slide-{n:06}.png', 'length': 40000 + n, 'chunkSize': CHUNK,
                                'uploadDate': now, 'metadata': {'contentType': 'image/png'}} for n in range(self.described)])

    def upload_many(self):
        """Peak memory of a fresh daemon, and the rate, while so many processes write a file each."""
        with self.fresh() as folder:
            started = time.perf_counter()
            writers = [subprocess.Popen([sys.executable, Path(__file__), folder / f'many-{n}', str(self.mib)],
                                        cwd=Path(__file__).parent, env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
                       for n in range(UPLOADS)]
            if any([writer.wait() for writer in writers]):
                raise WorkError('an upload failed')
            seconds = time.perf_counter() - started
            _, peak = self.subject.memory_kib()
        self.uploads = {'uploads': UPLOADS, 'mib': self.mib, 'rate': UPLOADS * self.mib / seconds, 'peak_kib': peak,
                        'goal_mib': MEMORY_GOAL_MIB, 'met': peak <= MEMORY_GOAL_MIB * 1024}

    def measure(self, say):
        self.fill()
        for work in (self.write, self.read):
            for repetition in range(self.repetitions):
                work(repetition)
            say(f'media: {work.__name__}')
        self.upload_many()
        say('media: uploads')
        self.fill_many()
        for work in (self.list, self.describe):
            for repetition in range(self.repetitions):
                work(repetition)
            say(f'media: {work.__name__}')

    def lines(self):
        size = f'{self.mib} MiB in order'
        return [Line(f'write of {size}', 'campusfs write', ['raw write'], SEQUENTIAL_GOAL, unit='MiB/s'),
                Line(f'read of {size}, cold', 'campusfs read', ['raw read'], SEQUENTIAL_GOAL, unit='MiB/s'),
                Line('reads of 4 KiB, single chunks', 'campusfs random', ['raw random'], unit='/s'),
                Line('first byte of a cold file', 'campusfs first', ['raw first']),
                Line(f'ls -l of {self.files:,} files, cold', 'campusfs list cold', ['raw list']),
                Line(f'ls -l of {self.files:,} files, warm', 'campusfs list warm', ['raw list']),
                Line(f'ls -l of .meta of {self.described:,} files', 'campusfs meta', ['raw meta'])]


def print_uploads(result):
    print(f'\nMemory of the daemon: {result["uploads"]} uploads of {result["mib"]:,} MiB at once, {result["rate"]:.0f} MiB/s\n'
          f'  most ever {result["peak_kib"] / 1024:.1f} MiB   goal <= {result["goal_mib"]} MiB  '
          f'{"met" if result["met"] else "NOT"}')


if __name__ == '__main__':
    write_file(Path(sys.argv[1]), int(sys.argv[2]))
