"""Pulls the adapter of scripts/usb-vm and plugs it in again, and is the slaves on its line:
usb-vm.py QMP-SOCKET CONSOLE-LOG CYCLES PORT."""
import json
import socket
import sys
import threading
import time

from guest import Qmp

UNITS = {"told-1": 1, "told-2": 2}
ADDRESSES = {"a": 0, "b": 16, "c": 32}
DEVICES = tuple(UNITS)
ISSUED = {}  # (unit, address) -> numbers of the requests that asked for it


def main():
    path, log, cycles = sys.argv[1], sys.argv[2], int(sys.argv[3])
    line = socket.create_server(("127.0.0.1", int(sys.argv[4])))
    threading.Thread(target=serve, args=(line,), daemon=True).start()
    wait_for(lambda: "journal open" in text(log), 120, "the agent starts in the guest")
    time.sleep(10)  # of good readings
    qmp = Qmp(path)
    slowest = 0.0
    for cycle in range(1, cycles + 1):
        seen = {d: text(log).count(back(d)) for d in DEVICES}
        lost = text(log).count("why=link")
        qmp.command("device_del", id="dongle")
        wait_for(lambda: text(log).count("why=link") >= lost + len(DEVICES), 30, "both devices are said to be gone")
        qmp.command("device_add", driver="usb-serial", chardev="c0", id="dongle", **{"always-plugged": True})
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
    values, wrong = check(log)
    print("slowest %.1f s; %d values shown, %d wrong" % (slowest, values, wrong))
    sys.exit(slowest > 5 or wrong > 0 or values < 10 * cycles)


def check(log):
    """Every value the agent showed: how many, and how many of them are no answer to a request for that register."""
    seen, wrong, last = set(), 0, {}
    for row in text(log).splitlines():
        if not row.startswith("STATUS {"):
            continue
        try:
            status = json.loads(row[len("STATUS "):])
        except ValueError:
            continue  # a line of the log came in between
        for device in status["devices"]:
            for point in device["points"]:
                where = (UNITS[device["name"]], ADDRESSES[point["name"]])
                if point["value"] is None or (where, point["at"]) in seen:
                    continue
                seen.add((where, point["at"]))
                number, tag = int(point["value"]) >> 12, int(point["value"]) & 0xFFF
                if tag != where[0] << 8 | where[1] or number not in ISSUED.get(where, ()) or number < last.get(where, 0):
                    wrong += 1
                    print("wrong: %s %s is %d at %s" % (device["name"], point["name"], point["value"], point["at"]))
                last[where] = number
    return len(seen), wrong


def serve(line):
    """Answers as units 1 and 2, function 4: each two registers hold request number << 12 | unit << 8 | address."""
    number = 0
    while True:
        conn, _ = line.accept()
        pending = b""
        while chunk := conn.recv(256):
            pending += chunk
            while len(pending) >= 8:
                if crc(pending[:6]) != pending[6:8]:
                    pending = pending[1:]
                    continue
                request, pending = pending[:8], pending[8:]
                unit, start, count = request[0], int.from_bytes(request[2:4]), int.from_bytes(request[4:6])
                number += 1
                answer = bytes((unit, request[1], 2 * count))
                for address in range(start, start + count, 2):
                    ISSUED.setdefault((unit, address), set()).add(number)
                    answer += (number << 12 | unit << 8 | address).to_bytes(4)
                time.sleep(0.03)
                conn.sendall(answer + crc(answer))


def crc(frame):
    value = 0xFFFF
    for byte in frame:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


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


main()
