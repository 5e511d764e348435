package modbus

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"

	"hubagent/config"
	"hubagent/drivers"
)

var _ drivers.Writer = (*Bus)(nil)

// Write implements drivers.Writer with function 5 (write single coil), 6 (write single register) or 16 (write multiple
// registers), and reads back what it wrote. On a two-wire adapter that echoes, the confirmation of a write looks like
// its own request, so that the reading back is what proves it; a device that does not let it be read has only confirmed.
func (b *Bus) Write(ctx context.Context, device config.Device, w config.Write, raw int64) error {
	limits := device.Model.Modbus
	longest := cmp.Or(b.config.Timeout, limits.ResponseTimeout, defaultTimeout)
	b.unit(byte(device.Unit))
	b.line.begin(ctx, wait{longest, longest}, limits)
	r := request{function: w.Function, start: w.Address, count: max(1, w.Type.Registers())}
	address := uint16(w.Address)
	var err error
	var want []byte
	switch {
	case w.Function == config.Coil:
		value := uint16(0)
		if raw != 0 {
			value = 0xFF00
		}
		want = []byte{byte(raw)}
		_, err = b.client.WriteSingleCoil(address, value)
	case r.count == 1:
		want = binary.BigEndian.AppendUint16(nil, uint16(raw))
		_, err = b.client.WriteSingleRegister(address, uint16(raw))
	default:
		want = arrange(binary.BigEndian.AppendUint32(nil, uint32(raw)), w.Order)
		_, err = b.client.WriteMultipleRegisters(address, uint16(r.count), want)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		failed := failure(err, r.String())
		failed.Device, failed.Write = device.Name, true
		return failed
	}
	b.line.begin(ctx, wait{longest, longest}, limits)
	data, failed := b.send(r)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case failed != nil && failed.Failure == drivers.Exception:
		return nil
	case failed != nil:
		failed.Device = device.Name
		return failed
	case w.Function == config.Coil:
		data = []byte{data[0] & 1}
	}
	if !bytes.Equal(data, want) {
		return &drivers.Error{Failure: drivers.Frame, Device: device.Name, At: r.String(), Write: true,
			Detail: fmt.Sprintf("it confirmed the write of % x, but holds % x", want, data)}
	}
	return nil
}
