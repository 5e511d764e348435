"""Modbus slaves by pymodbus, for tests: python3 slave.py tcp|rtutcp PORT SITE.json | rtu DEVICE SITE.json

SITE.json: {"UNIT": {"holding"|"input"|"discrete": [[TYPE, ADDRESS, VALUE], ...]}}
TYPE is a letter of Python's struct for big-endian packing (H h I i f q d), "low" for an unsigned 32-bit number with the
low word first, "bit", or "clock": the present second modulo 100.
"""
import asyncio
import json
import struct
import sys
import time

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.server import StartAsyncSerialServer, StartAsyncTcpServer
from pymodbus.transaction import ModbusRtuFramer

SIZE = 0x400


class Block(ModbusSequentialDataBlock):
    def __init__(self, entries):
        values = [0] * SIZE
        self.clocks = []
        for kind, address, value in entries:
            if kind == "clock":
                self.clocks.append(address)
            elif kind == "bit":
                values[address] = value
            elif kind == "low":
                values[address : address + 2] = [value & 0xFFFF, value >> 16]
            else:
                raw = struct.pack(">" + kind, value)
                words = struct.unpack(">%dH" % (len(raw) // 2), raw)
                values[address : address + len(words)] = words
        super().__init__(0, values)

    def getValues(self, address, count=1):
        for a in self.clocks:
            self.values[a] = int(time.time()) % 100
        return super().getValues(address, count)


async def main():
    kind, where, site = sys.argv[1:]
    with open(site) as f:
        units = json.load(f)
    context = ModbusServerContext(
        slaves={
            int(unit): ModbusSlaveContext(
                hr=Block(tables.get("holding", [])),
                ir=Block(tables.get("input", [])),
                di=Block(tables.get("discrete", [])),
                co=Block([]),
                zero_mode=True,
            )
            for unit, tables in units.items()
        },
        single=False,
    )
    if kind == "tcp":
        await StartAsyncTcpServer(context=context, address=("127.0.0.1", int(where)))
    elif kind == "rtutcp":
        await StartAsyncTcpServer(context=context, framer=ModbusRtuFramer, address=("127.0.0.1", int(where)))
    else:
        await StartAsyncSerialServer(
            context=context, framer=ModbusRtuFramer, port=where, baudrate=9600, ignore_missing_slaves=True
        )


asyncio.run(main())
