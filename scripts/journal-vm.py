"""Cuts the power of the guest of scripts/journal-vm and checks the journal that it wrote; see there."""
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time

from guest import Guest

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


def make_disk(fs, path, size_mb=DISK_MB):
    """Makes a file system of DISK_MB at the beginning of a new disk."""
    with open(path, "wb") as f:
        f.truncate(size_mb << 20)
    if fs == "ext4":
        command = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard", path, "%dM" % DISK_MB]
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
        else: # none yet, or one whose last lines are not known: this program was ended in the middle
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
        boot = Boot(Guest(disk.folder, [raw(disk.path("job")), raw(disk.path("disk"), ",cache.direct=off")]),
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
            shutil.copy(disk.path("said"), disk.path("said.before"))
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
                self.cut_in(2000 if self.target == "commit" else 4000)
        elif self.doing == self.target in AIMED_MS and random.random() < 0.5:
            self.cut_in(AIMED_MS[self.doing])
            self.target = "commit"

    def cut_in(self, most_ms):
        self.cut_at = time.monotonic() + random.random() * most_ms / 1000


def acknowledged(said):
    numbers = [int(line.split(" ")[0]) for line in said if line.split(" ")[0].isdigit()]
    return 1 + max(numbers, default=-1)


main()
