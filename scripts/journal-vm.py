"""Cuts the power of the guest of scripts/journal-vm and checks the journal that it wrote; see there."""
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import time

from guest import Guest, Qmp

FILE_SYSTEMS = ("ext4", "f2fs")
DISK_MB = 256
CUTS_A_DISK = 50  # then a new one: what the check costs grows with the leaves that were ever written
UP_S = 300  # for a guest to come up and check its journal, on a machine that is busy

# Half of the cuts hit one of these things, at most so many milliseconds after its beginning.
AIMED_MS = {"recovery": 1500, "open": 300, "drop": 300, "gc": 150, "close": 150}
BEGINS = ("open", "drop", "gc", "close")
ENDS = ("opened", "dropped", "gced", "closed")

CHECK_AND_WRITE = """
echo vm: recovery
mount -t {fs} /dev/vdb /disk || {{ echo vm: cannot mount; exec sleep 1000; }}
HUB_JOURNAL_CHECK=/disk/journal /buffer.test </job/said
echo "vm: check $?"
HUB_JOURNAL_WRITER=/disk/journal /buffer.test
echo vm: the writer ended
exec sleep 1000
"""


def main():
    mode, arguments = sys.argv[1], sys.argv[2:]
    if mode == "cut":
        Campaign(int(arguments[0]), arguments[1]).run()
    elif mode == "replay":
        replay(int(arguments[0]), arguments[1])
    elif mode == "flash":
        flash(float(arguments[0]), arguments[1], arguments[2:])


def make_disk(fs, path, size_mb=DISK_MB):
    """Makes a file system of DISK_MB at the beginning of a new disk."""
    with open(path, "wb") as f:
        f.truncate(size_mb << 20)
    if fs == "ext4":
        # In blocks of 4 KB and with all that a large disk has from the beginning.
        command = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", path, "%dM" % DISK_MB]
    else:
        command = ["mkfs.f2fs", "-q", "-f", path, str(DISK_MB << 11)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def copy_disk(source, target):
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)


def make_job(path, run, files=()):
    """Makes the guest's first disk: the script run, and files by name."""
    with tarfile.open(path, "w") as tar:
        for name, content in [("run", run.encode()), *files]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def raw(path, cache=""):
    return "driver=raw,file.driver=file,file.filename=" + path + cache


class Cut:
    """A power cut that nobody has judged yet."""

    def __init__(self, number, ms, doing):
        self.number, self.ms, self.doing = number, ms, doing


class Disk:
    """A file system with a journal, over its cuts. Everything is in one folder: disk; before, which is the disk as the
    last cut left it; said, the lines of all its writers; state."""

    def __init__(self, folder, fs):
        self.folder, self.fs = folder, fs
        state = self.path("state")
        if os.path.exists(state):
            with open(state) as f:
                kept = json.load(f)
            self.cuts = kept["cuts"]
            self.open = [Cut(*c) for c in kept["open"]]
        else:  # none yet, or one whose last lines are not known: this program was ended in the middle
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            make_disk(fs, self.path("disk"))
            open(self.path("said"), "w").close()
            self.cuts, self.open = 0, []

    def path(self, name):
        return os.path.join(self.folder, name)

    def save(self):
        with open(self.path("state.new"), "w") as f:
            json.dump({"cuts": self.cuts, "open": [[c.number, c.ms, c.doing] for c in self.open]}, f)
        os.replace(self.path("state.new"), self.path("state"))


class Campaign:
    def __init__(self, runs, folder):
        self.runs, self.folder = runs, folder
        os.makedirs(folder, exist_ok=True)
        self.ledger = os.path.join(folder, "ledger")
        if not os.path.exists(self.ledger):
            with open(self.ledger, "w") as f:
                f.write("# cut, file system, ms after start, in the middle of, leaves acknowledged, found, verdict\n")
        self.lines = [line.split(maxsplit=6) for line in open(self.ledger) if not line.startswith("#")]
        self.next = 1 + max((int(line[0]) for line in self.lines), default=0)

    def run(self):
        self.stop_at_failure()
        disks = {}
        turn = 0
        while len(self.lines) < self.runs:
            fs = FILE_SYSTEMS[turn % len(FILE_SYSTEMS)]
            turn += 1
            if fs not in disks:
                disks[fs] = Disk(os.path.join(self.folder, fs), fs)
                self.next = max([self.next] + [c.number + 1 for c in disks[fs].open])
            self.boot(disks, fs)
        for fs in FILE_SYSTEMS:
            print("%s: %d cuts, in the middle of %s" % (fs, *self.totals(fs)))
        print("all that was acknowledged was there after every one of %d cuts" % len(self.lines))

    def totals(self, fs):
        doing = [line[3] for line in self.lines if line[1] == fs]
        return len(doing), ", ".join("%s %d" % (d, doing.count(d)) for d in sorted(set(doing)))

    def stop_at_failure(self):
        for line in self.lines:
            if line[6].strip() != "good":
                sys.exit("cut %s failed: %s; its disk is in %s; move the folder away to begin anew"
                         % (line[0], line[6].strip(), os.path.join(self.folder, line[1])))

    def boot(self, disks, fs):
        """Starts the guest on a disk, lets it check what the last cut left, and cuts its power."""
        disk = disks[fs]
        with open(disk.path("said"), "rb") as f:
            said = f.read()
        make_job(disk.path("job"), CHECK_AND_WRITE.format(fs=fs), [("said", said)])
        copy_disk(disk.path("disk"), disk.path("before"))
        if os.path.exists(disk.path("state")):
            os.remove(disk.path("state"))
        last = disk.cuts >= CUTS_A_DISK
        boot = Boot(Guest(disk.folder, [raw(disk.path("job")), raw(disk.path("disk"), ",cache.no-flush=on")]),
                    disk, "judge" if last else random.choice(["commit", random.choice(list(AIMED_MS))]))
        try:
            boot.run()
        finally:
            ms = boot.guest.milliseconds()
            rest = boot.guest.kill()
        for line in rest:
            boot.take(line)
        disk.open.append(Cut(self.next, ms, boot.doing))
        self.next += 1
        disk.cuts += 1
        if boot.verdict:
            self.judge(disk, boot, disk.open[:-1])
            disk.open = disk.open[-1:]
        with open(disk.path("said"), "ab") as f:
            f.write("".join(line + "\n" for line in boot.said).encode())
        disk.save()
        if last and boot.verdict == "good":
            shutil.rmtree(disk.folder)
            del disks[fs]

    def judge(self, disk, boot, cuts):
        acknowledged = boot.acknowledged_before
        for c in cuts:
            line = [str(c.number), disk.fs, str(c.ms), c.doing, str(acknowledged), boot.found, boot.verdict]
            with open(self.ledger, "a") as f:
                f.write(" ".join(line) + "\n")
                os.fsync(f.fileno())
            self.lines.append(line)
            print("cut %d, %d of %d: %s, %d ms after the start, in %s: %d leaves acknowledged, %s found: %s"
                  % (c.number, len(self.lines), self.runs, disk.fs, c.ms, c.doing, acknowledged, boot.found, boot.verdict), flush=True)
        if boot.verdict != "good":
            if not cuts:
                sys.exit("%s: a new disk: %s" % (disk.folder, boot.verdict))
            self.stop_at_failure()


class Boot:
    """One life of the guest."""

    def __init__(self, guest, disk, target):
        self.guest, self.target = guest, target
        self.doing = "boot"
        self.said, self.heard = [], []
        self.found, self.verdict = "-", ""
        self.acknowledged_before = acknowledged(open(disk.path("said")))
        self.cut_at = None

    def run(self):
        """Reads what the guest says until the moment of the cut."""
        up = time.monotonic() + UP_S
        while True:
            try:
                line = self.guest.line(self.cut_at or up)
            except TimeoutError:
                if self.cut_at is None:
                    self.verdict = "nothing more was heard after %s" % self.doing
                return
            if line is None:
                self.verdict = self.verdict or "the guest ended in %s" % self.doing
                return
            self.take(line)
            if self.verdict not in ("", "good"):
                return
            self.aim()

    def take(self, line):
        word = line.split(" ")[0]
        if line == "vm: recovery":
            self.doing = "recovery"
        elif line.startswith("vm: check "):
            good = line == "vm: check 0" and self.heard and self.heard[-1].startswith("good: ")
            self.verdict = "good" if good else "check: " + " / ".join(self.heard)
            self.found = self.heard[-1].split(" ")[1] if good else "-"
            self.doing = "open"
        elif line.startswith("vm:") or self.verdict and word not in BEGINS + ENDS and not word.isdigit():
            self.verdict = line
        elif not self.verdict:
            self.heard.append(line)
        else:
            self.said.append(line)
            self.doing = word if word in BEGINS else "commit"

    def aim(self):
        """Sets the moment of the cut once what it is aimed at has begun."""
        if self.target == "judge":
            if self.verdict:
                self.cut_at = time.monotonic()
        elif self.target == "recovery":
            if self.doing == "recovery" and self.cut_at is None:
                self.cut_in(AIMED_MS["recovery"])
        elif self.cut_at is None:
            if self.said and self.said[-1].split(" ")[0].isdigit():
                self.cut_in(3000 if self.target == "commit" else 4000)
        elif self.doing == self.target in AIMED_MS and random.random() < 0.5:
            self.cut_in(AIMED_MS[self.doing])
            self.target = "commit"

    def cut_in(self, most_ms):
        self.cut_at = time.monotonic() + random.random() * most_ms / 1000


def acknowledged(said):
    numbers = [int(line.split(" ")[0]) for line in said if line.split(" ")[0].isdigit()]
    return 1 + max(numbers, default=-1)



# The write log.

RECORD_LEAVES = 1500  # of the run that is recorded: some drops, and value logs that are written again
POINTS_A_BOOT = 16  # as many disks as the guest's bus takes beside the others
FLUSH, DISCARD = 1, 4  # flags of an entry, see the kernel's Documentation/admin-guide/device-mapper/log-writes.rst
SECTOR = 512

RECORD = """
mount -t {fs} /dev/vdb /disk || exec echo vm: cannot mount
HUB_JOURNAL_SAID=/dev/vdb HUB_JOURNAL_SAID_AT={at} HUB_JOURNAL_WRITER=/disk/journal /buffer.test
echo vm: the writer ended
exec sleep 1000
"""

CHECK_DISKS = """
for disk in {disks}; do
	echo "vm: disk $disk"
	mount -t {fs} /dev/$disk /disk && HUB_JOURNAL_CHECK=/disk/journal /buffer.test </job/$disk
	echo "vm: check $?"
	umount /disk
done
echo vm: done
exec sleep 1000
"""


def replay(points, folder):
    """Records all that a writer's guest writes to its disk, and checks the journal on disks that hold it up to some
    point: all up to the last flush before the point, and of what follows it what a disk's cache may have kept."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for i, fs in enumerate(FILE_SYSTEMS):
        log = record(fs, folder)
        replay_points(log, (points + i) // len(FILE_SYSTEMS), folder)


def record(fs, folder):
    base, disk, path, job = (os.path.join(folder, fs + "." + n) for n in ("base", "disk", "log", "job"))
    make_disk(fs, base)
    copy_disk(base, disk)
    with open(disk, "r+b") as f:
        f.truncate(2 * DISK_MB << 20)  # behind the file system: what the writer says
    open(path, "w").close()
    make_job(job, RECORD.format(fs=fs, at=DISK_MB << 20))
    guest = Guest(folder, [raw(job), "driver=blklogwrites,discard=unmap,log-sector-size=512,file.driver=file,file.filename=%s,"
                           "log.driver=file,log.filename=%s" % (disk, path)])
    try:
        log = WriteLog(fs, base, path)
        end = time.monotonic() + UP_S
        while log.read() < RECORD_LEAVES:
            try:
                sys.exit("while a write log is recorded the guest says: %s" % guest.line(time.monotonic() + 1))
            except TimeoutError:
                if time.monotonic() > end:
                    sys.exit("%s: %d leaves in %d s" % (fs, acknowledged(log.said(len(log.entries))), UP_S))
    finally:
        guest.kill()
    log.read()
    os.remove(disk)
    return log


class WriteLog:
    """A log of QEMU's blklogwrites, and the disk on which it begins."""

    def __init__(self, fs, base, path):
        self.fs, self.base = fs, base
        self.file = open(path, "rb", buffering=0)  # it grows
        self.entries = []  # first byte, bytes, flags, where the data is in the log
        self.at = SECTOR
        self.leaves = 0
        self.marks = []  # number of the entry, text

    def read(self):
        """Takes up what the log has grown by, as far as its head says that it goes. Returns the leaves acknowledged."""
        self.file.seek(0)
        head = self.file.read(28)
        if len(head) < 28 or not any(head):
            return 0
        magic, version, count, sector = struct.unpack("<QQQI", head)
        if (magic, version, sector) != (0x6A736677736872, 1, SECTOR):
            sys.exit("not a write log: %x, version %d, sectors of %d bytes" % (magic, version, sector))
        while len(self.entries) < count:
            self.file.seek(self.at)
            sector, sectors, flags, _ = struct.unpack("<QQQQ", self.file.read(32))
            self.at += SECTOR
            entry = (sector * SECTOR, sectors * SECTOR, flags, self.at)
            if flags & DISCARD == 0:
                self.at += sectors * SECTOR
            if self.is_mark(entry):
                text = self.data(entry).rstrip(b"\0").decode()
                self.marks.append((len(self.entries), text))
                if text.split(" ")[0].isdigit():
                    self.leaves += 1
            self.entries.append(entry)
        return self.leaves

    def data(self, entry):
        self.file.seek(entry[3])
        return self.file.read(entry[1])

    def is_mark(self, entry):
        return entry[0] >= DISK_MB << 20 and entry[1] > 0

    def said(self, point):
        """The lines that writers had said before entry number point was written."""
        return [text for at, text in self.marks if at < point]

    def apply(self, disk, entry, keep=lambda: True, block=None):
        """Writes an entry to a disk; with block only those of its blocks that keep asks for."""
        start, length, flags, _ = entry
        if length == 0 or self.is_mark(entry):
            return
        data = bytes(length) if flags & DISCARD else self.data(entry)
        step = block or length
        for i in range(0, length, step):
            if keep():
                disk.seek(start + i)
                disk.write(data[i:i + step])


def half():
    return random.random() < 0.5


# What of the writes after the last flush is on the disk. A part of a write is whole blocks: those of f2fs, which relies
# on them, and else sectors.
CACHES = {
    "the first writes": lambda log, disk, entry: log.apply(disk, entry),
    "any writes": lambda log, disk, entry: half() and log.apply(disk, entry),
    "any parts of writes": lambda log, disk, entry: log.apply(disk, entry, half, 4096 if log.fs == "f2fs" else SECTOR),
}


def replay_points(log, points, folder):
    flush, between = -1, []
    for i, entry in enumerate(log.entries):
        if entry[1] == 0 and entry[2] & FLUSH:
            flush = i
        elif not log.is_mark(entry):
            between.append((i + 1, flush))
    flushes = sum(1 for e in log.entries if e[1] == 0 and e[2] & FLUSH)
    print("%s: %d leaves; %d writes between %d flushes are recorded" % (log.fs, log.leaves, len(between), flushes), flush=True)
    chosen = sorted(random.sample(between, min(points, len(between))))
    stable = os.path.join(folder, log.fs + ".stable")
    copy_disk(log.base, stable)
    done, good = 0, 0
    while chosen:
        batch, chosen = chosen[:POINTS_A_BOOT], chosen[POINTS_A_BOOT:]
        disks = []
        for point, flush in batch:
            with open(stable, "r+b") as f:
                while done <= flush:
                    log.apply(f, log.entries[done])
                    done += 1
            disk = os.path.join(folder, "%s.%d" % (log.fs, point))
            copy_disk(stable, disk)
            cache = random.choice(list(CACHES))
            with open(disk, "r+b") as f:
                for entry in log.entries[flush + 1:point]:
                    CACHES[cache](log, f, entry)
            disks.append((disk, point, flush, cache))
        check_points(log, disks, folder)
        good += len(batch)
        print("%s: %d of %d points between two flushes are good" % (log.fs, good, good + len(chosen)), flush=True)


def check_points(log, disks, folder):
    names = ["vd" + chr(ord("b") + i) for i in range(len(disks))]
    job = os.path.join(folder, log.fs + ".job")
    make_job(job, CHECK_DISKS.format(fs=log.fs, disks=" ".join(names)),
             [(name, "".join(log.said(point)).encode()) for name, (_, point, _, _) in zip(names, disks)])
    # What recovery writes is not kept: a point that fails is there to be looked at.
    guest = Guest(folder, [raw(job)] + [raw(d[0], ",cache.no-flush=on") for d in disks], arguments=["-snapshot"])
    heard, left = [], list(disks)
    try:
        while left:
            line = guest.line(time.monotonic() + UP_S)
            if line == "vm: check 0" and heard and heard[-1].startswith("good: "):
                os.remove(left.pop(0)[0])
                heard = []
            elif line is None or line.startswith("vm: check"):
                disk, point, flush, cache = left[0]
                said = disk + ".said"
                with open(said, "w") as f:
                    f.writelines(log.said(point))
                sys.exit("%s: entry %d after flush %d, %s: %s; kept: %s, %s"
                         % (log.fs, point, flush, cache, " / ".join(heard), disk, said))
            elif not line.startswith("vm: disk"):
                heard.append(line)
    finally:
        guest.kill()


# What a reading costs.

MOUNTS = (("ext4", "relatime"), ("ext4", "lazytime"), ("f2fs", "relatime"))
ENDURANCE = 10e12  # bytes that a card's maker promises
SITE_READINGS_S = 131  # the site of buffer/flash_test.go

MEASURE = """
mount -t {fs} -o {option} /dev/vdb /disk || exec echo cannot mount
grep vdb /proc/mounts
HUB_FLASH_DIR=/disk HUB_FLASH_SYNC={sync} HUB_FLASH_FOR={minutes}m /buffer.test -test.run TestFlashOfADisk
exec sleep 1000
"""


def flash(hours, folder, intervals):
    """Measures at the guest's disk. Its processor is an imagined one that takes the same time for each instruction, and
    its clock leaps over what it sleeps, so an hour of its clock takes minutes and whatever it does at intervals - the
    site, and its file system - keeps them. With REAL_TIME set it is a plain clock."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    print("%-14s %-9s %20s %15s %16s %9s %9s %8s" % ("", "interval", "disk, bytes/reading", "x gzipped leaf", "process, bytes",
                                                    "writes/h", "flushes/h", "10 TB"))
    for fs, option in MOUNTS:
        for sync in intervals:
            measure(fs, option, sync, hours, folder)


def measure(fs, option, sync, hours, folder):
    disk, job, path = (os.path.join(folder, n) for n in ("disk", "job", "qmp"))
    make_disk(fs, disk)
    make_job(job, MEASURE.format(fs=fs, option=option, sync=sync, minutes=round(hours * 60)))
    clock = [] if os.environ.get("REAL_TIME") else ["-icount", "shift=3,sleep=off"]
    guest = Guest(folder, [raw(job), raw(disk, ",cache.no-flush=on")], arguments=[*clock, "-qmp", "unix:%s,server=on,wait=off" % path])
    try:
        expect(guest, "begin", UP_S)
        qmp = Qmp(path)
        before = counts(qmp)
        guest.tell("go")
        _, readings, payload, process, late = expect(guest, "end", 3600 + hours * 7200).split(" ")
        after = counts(qmp)
    finally:
        guest.kill()
    size, writes, flushes = (b - a for a, b in zip(before, after))
    a_reading = size / int(readings)
    print("%-14s %-9s %20.1f %15.1f %16.1f %9.0f %9.0f %4.0f years; at most %s ms late"
          % (fs + " " + option, sync, a_reading, size / int(payload), int(process) / int(readings), writes / hours, flushes / hours,
             ENDURANCE / (a_reading * SITE_READINGS_S * 86400 * 365.25), late), flush=True)


def expect(guest, word, seconds):
    end = time.monotonic() + seconds
    heard = []
    while True:
        line = guest.line(end)
        if line is None:
            sys.exit("the guest ended: " + " / ".join(heard))
        if line.split(" ")[0] == word:
            return line
        heard.append(line)
        if line == "FAIL":
            sys.exit("the guest says: " + " / ".join(heard))


def counts(qmp):
    """Bytes, writes and flushes of the second disk."""
    stats = qmp.command("query-blockstats")[1]["stats"]
    return stats["wr_bytes"], stats["wr_operations"], stats["flush_operations"]


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
