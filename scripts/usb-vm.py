"""Pulls the adapter of scripts/usb-vm and plugs it in again: usb-vm.py QMP-SOCKET CONSOLE-LOG CYCLES."""
import json
import socket
import sys
import time

DEVICES = ("meter-001", "bin-001")


def main():
    path, log, cycles = sys.argv[1], sys.argv[2], int(sys.argv[3])
    wait_for(lambda: "journal open" in text(log), 120, "the agent starts in the guest")
    time.sleep(10)  # of good readings
    qmp = connect(path)
    slowest = 0.0
    for cycle in range(1, cycles + 1):
        seen = {d: text(log).count(back(d)) for d in DEVICES}
        lost = text(log).count("why=link")
        command(qmp, "device_del", id="dongle")
        wait_for(lambda: text(log).count("why=link") >= lost + len(DEVICES), 30, "both devices are said to be gone")
        command(qmp, "device_add", driver="usb-serial", chardev="c0", id="dongle", **{"always-plugged": True})
        begin = time.monotonic()
        took = {}
        while len(took) < len(DEVICES):
            for d in DEVICES:
                if d not in took and text(log).count(back(d)) > seen[d]:
                    took[d] = time.monotonic() - begin
            if time.monotonic() - begin > 60:
                sys.exit("cycle %d: not back within 60 s: %s" % (cycle, set(DEVICES) - set(took)))
            time.sleep(0.05)
        slowest = max(slowest, *took.values())
        print("cycle %d: %s" % (cycle, ", ".join("%s back after %.1f s" % (d, took[d]) for d in DEVICES)), flush=True)
        time.sleep(3)
    print("slowest %.1f s" % slowest)
    sys.exit(slowest > 5)


def back(device):
    return 'msg="device is back" bus=line device=' + device


def text(path):
    with open(path, errors="replace") as f:
        return f.read()


def wait_for(ok, seconds, what):
    end = time.monotonic() + seconds
    while not ok():
        if time.monotonic() > end:
            sys.exit("did not happen within %d s: %s" % (seconds, what))
        time.sleep(0.05)


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    f = s.makefile("rw")
    f.readline()
    command(f, "qmp_capabilities")
    return f


def command(f, name, **arguments):
    f.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
    f.flush()
    while True:
        answer = json.loads(f.readline())
        if "error" in answer:
            sys.exit("%s: %s" % (name, answer["error"]))
        if "return" in answer:
            return


main()
