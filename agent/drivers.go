package main

import (
	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/gpio"
	"hubagent/drivers/modbus"
)

// openers is the table of buses: a new kind is one package and one line here.
func openers() map[config.BusKind]drivers.OpenFunc {
	return map[config.BusKind]drivers.OpenFunc{
		config.ModbusTCP:    modbus.OpenTCP,
		config.ModbusRTU:    modbus.OpenRTU,
		config.ModbusRTUTCP: modbus.OpenRTUTCP,
		config.GPIO:         gpio.Open,
		config.GPIOSim:      gpio.OpenSim,
	}
}
