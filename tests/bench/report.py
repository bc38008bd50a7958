"""Samples, medians, ratios against the yardsticks, and the tables that are printed."""

import statistics


class Samples:
    """Seconds (or rates, or bytes) by section, subject and work; each may be measured any number of times."""

    def __init__(self):
        self.values = {}
        self.failures = {}

    def add(self, section, subject, work, value):
        self.values.setdefault(section, {}).setdefault(f'{subject} {work}', []).append(value)

    def fail(self, section, subject, work, reason):
        self.failures.setdefault(section, {}).setdefault(f'{subject} {work}', reason)

    def median(self, section, key):
        """None when there is none, or when the work failed even once."""
        values = self.values.get(section, {}).get(key)
        if not values or key in self.failures.get(section, {}):
            return None
        return statistics.median(values)

    def best(self, section, key, rate=False):
        return (max if rate else min)(self.values[section][key])

    def spread(self, section, key):
        """Half the distance between the extremes, as a part of the median."""
        values = self.values[section][key]
        middle = statistics.median(values)
        return (max(values) - min(values)) / 2 / middle if middle else 0.0


class Line:
    """One line of a table: a subject's work, the sum of the yardsticks beside it, and the goal.

    The ratio is subject / sum; with a unit other than seconds the values are rates and the goal a lower bound. `goal`
    None: no figure is set, the ratio is for comparison. The ratio of the fastest samples stands beside: what disturbs a run only ever
    slows it.
    """

    def __init__(self, title, subject, yardsticks, goal=None, unit='s'):
        self.title = title
        self.subject = subject
        self.yardsticks = yardsticks
        self.goal = goal
        self.unit = unit
        self.rate = unit != 's'

    def result(self, samples, section):
        values = [samples.median(section, key) for key in self.yardsticks]
        value = samples.median(section, self.subject)
        result = {'section': section, 'work': self.title, 'subject': self.subject, 'value': value,
                  'unit': self.unit, 'yardsticks': dict(zip(self.yardsticks, values)),
                  'goal': self.goal, 'ratio': None, 'best_ratio': None, 'met': None}
        reasons = samples.failures.get(section, {})
        failed = [f'{key}: {reasons[key]}' for key in (self.subject, *self.yardsticks) if key in reasons]
        if failed:
            result['failed'] = '; '.join(failed)
        if value is not None and None not in values:
            result['spread'] = max(samples.spread(section, key) for key in (self.subject, *self.yardsticks))
            result['ratio'] = value / sum(values)
            best, *bests = (samples.best(section, key, self.rate) for key in (self.subject, *self.yardsticks))
            result['best_ratio'] = best / sum(bests)
            if self.goal is not None:
                result['met'] = result['ratio'] >= self.goal if self.rate else result['ratio'] <= self.goal
        return result


def _amount(value, unit='s'):
    if value is None:
        return '-'
    if unit != 's':
        return f'{value:,.0f}{unit if unit[0] == "/" else " " + unit}'
    return f'{value * 1000:,.0f} ms' if value >= 0.02 else f'{value * 1e6:,.0f} µs'


def _parts(result):
    parts = [f'{_amount(value, result["unit"])} {key}' for key, value in result['yardsticks'].items()]
    return ' + '.join(parts)


def print_lines(title, results):
    """One table; nothing when none of its works was measured."""
    results = [result for result in results if result['value'] is not None or 'failed' in result]
    if not results:
        return
    print(f'\n{title}')
    print(f'  {"work":<34} {"measured":>11} {"spread":>7}  {"ratio":>6} {"best":>6}  {"goal":<7} {"":<5} yardstick')
    for result in results:
        rate = result['unit'] != 's'
        if 'failed' in result:
            print(f'  {result["work"]:<34} FAILED: {result["failed"]}')
            continue
        ratio, best = ('' if result[key] is None else f'{result[key]:.2f}' for key in ('ratio', 'best_ratio'))
        goal = '' if result['goal'] is None else f'{"≥" if rate else "≤"} {result["goal"]:.1f}'
        met = {None: '', True: 'met', False: 'NOT'}[result['met']]
        spread = f'±{result["spread"] * 100:.0f} %' if 'spread' in result else ''
        value = _amount(result['value'], result['unit'])
        print(f'  {result["work"]:<34} {value:>11} {spread:>7}  {ratio:>6} {best:>6}  {goal:<7} {met:<5} '
              f'{_parts(result)}')


# An honest limit daemon, cold, over native tmpfs, 20,000 files of 600 B; ± 30 %. One that is slower flatters us.
HONEST = {'ls': ('ls -l', 1.3), 'cat': ('find -exec cat {} +', 2.5), 'tar': ('tar through a pipe', 5.7),
          'rsync': ('rsync -a', 1.4), 'stat': ('stat by name', 9.0)}
HONEST_TOLERANCE = 0.3


def honesty(samples, section):
    """One result for each work of HONEST."""
    results = []
    for work, (title, known) in HONEST.items():
        native, limit = (samples.median(section, f'{subject} {work} cold') for subject in ('native', 'limit'))
        if native is None or limit is None:
            continue
        ratio = limit / native
        results.append({'section': section, 'work': title, 'native': native, 'limit': limit, 'ratio': ratio,
                        'known': known, 'slower': ratio > known * (1 + HONEST_TOLERANCE)})
    return results


def print_honesty(results):
    if not results:
        return
    print('\nIs the limit daemon honest? 20,000 files of 600 B, cold, over native tmpfs (known ratios ± 30 %)')
    print(f'  {"work":<34} {"native":>11} {"limit":>11}  {"ratio":>6}  {"known":>5}')
    for result in results:
        off = result['ratio'] / result['known'] - 1
        verdict = 'SLOWER than known: it flatters' if result['slower'] else \
            'faster than known' if off < -HONEST_TOLERANCE else 'as known'
        print(f'  {result["work"]:<34} {_amount(result["native"]):>11} {_amount(result["limit"]):>11}  '
              f'{result["ratio"]:>6.2f}  {result["known"]:>5.1f}  {verdict} ({off:+.0%})')


def latencies(samples, turns):
    """Medians of each turn's p50 and p99, and of its requests a save; `turns` are (writers, how)."""
    results = []
    for writers, how in turns:
        key = f'put {writers}' if how == 'put' else f'campusfs {how} {writers}'
        points = {point: samples.median('saves', f'{key} {point}') for point in ('p50_us', 'p99_us', 'requests')}
        if points['p50_us'] is not None:
            results.append({'writers': writers, 'how': how, **points})
    return results


def print_saves(results, tools):
    if results:
        print('\nHow long one save takes, and what it asks of the mount')
        print(f'  {"writers":>7}  {"by":<12} {"p50":>9} {"p99":>9}  requests a save')
    for result in results:
        by = 'put_users()' if result['how'] == 'put' else result['how']
        requests = '' if result['requests'] is None else f'{result["requests"]:.1f}'
        print(f'  {result["writers"]:>7}  {by:<12} {result["p50_us"]:>6,.0f} µs {result["p99_us"]:>6,.0f} µs  {requests}')
    if tools:
        print('\nRequests of one save by a tool, of a row that has been read')
    for tool in tools:
        kinds = ', '.join(f'{kind} {n:.1f}' for kind, n in sorted(tool['kinds'].items(), key=lambda item: -item[1]))
        print(f'  {tool["tool"]:<8} {tool["requests"]:>6.1f}  {kinds}')


def print_memory(results):
    if not results:
        return
    print('\nMemory of the daemon after a listing (ls -l)')
    print(f'  {"entries":>9} {"resident":>12} {"most ever":>12}  {"more than the first":>20}  goal')
    for result in results:
        goal = '' if result['goal_mib'] is None else f'≤ {result["goal_mib"]} MiB  {"met" if result["met"] else "NOT"}'
        resident, peak = result['resident_kib'] / 1024, result['peak_kib'] / 1024
        print(f'  {result["entries"]:>9,} {resident:>8.1f} MiB {peak:>8.1f} MiB  {result["growth_mib"]:>16.1f} MiB  {goal}')
