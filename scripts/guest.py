"""A guest under QEMU, for the scripts that boot one: what it says, its QMP, its end."""
import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time


class Guest:
    """A running guest of scripts/journal-vm. Its lines come by a virtio port whose writes return once QEMU has passed
    them on, so whatever the guest knows to be said is read here even after kill."""

    def __init__(self, folder, disks, smp=1, arguments=()):
        self.begin = time.monotonic()
        self.console = os.path.join(folder, "console")
        devices = []
        for i, disk in enumerate(disks):
            devices += ["-blockdev", "%s,node-name=d%d" % (disk, i),
                        "-device", "virtio-blk-pci,drive=d%d,id=v%d,write-zeroes=off" % (i, i)]
        self.process = subprocess.Popen(
            ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-m", "512", "-smp", str(smp), "-nodefaults",
             "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:" + self.console,
             "-kernel", "dist/guest/vmlinuz", "-initrd", os.environ["INITRD"],
             "-append", "console=ttyAMA0 quiet panic=-1", "-device", "virtio-serial-pci",
             "-chardev", "stdio,id=said,signal=off", "-device", "virtserialport,chardev=said", *devices, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            if line.endswith(b"\n"):  # one without its end was not said
                self.lines.put(line[:-1].decode(errors="replace"))
        self.lines.put(None)

    def line(self, end):
        """The next line, or None when the guest has ended. TimeoutError at the moment end."""
        try:
            line = self.lines.get(timeout=max(0, end - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            self.lines.put(None)
        return line

    def milliseconds(self):
        return int((time.monotonic() - self.begin) * 1000)

    def tell(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def kill(self):
        """Ends the guest as a power cut does, and returns the lines that it had said and nobody has read."""
        self.process.kill()
        self.process.wait()
        rest = []
        while (line := self.lines.get()) is not None:
            rest.append(line)
        return rest


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Qmp:
    def __init__(self, path):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        self.file = s.makefile("rw")
        self.file.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                sys.exit("%s: %s" % (name, answer["error"]))
            if "return" in answer:
                return answer["return"]
