package config

// choice is a text with a closed set of values.
type choice interface{ choices() []string }

func (BusKind) choices() []string {
	return []string{string(ModbusTCP), string(ModbusRTU), string(ModbusRTUTCP), string(GPIO), string(GPIOSim)}
}

func (Parity) choices() []string {
	return []string{string(ParityNone), string(ParityEven), string(ParityOdd)}
}

func (RS485) choices() []string {
	return []string{string(RS485Adapter), string(RS485RTSHigh), string(RS485RTSLow)}
}

func (DeviceKind) choices() []string {
	return []string{string(Bin), string(Meter), string(Camera), string(Contact)}
}

func (Function) choices() []string {
	return []string{string(Coil), string(DiscreteInput), string(HoldingRegister), string(InputRegister), string(Line)}
}

func (Type) choices() []string {
	return []string{string(Bool), string(U16), string(S16), string(U32), string(S32), string(U64), string(S64), string(F32), string(F64),
		string(BCD16), string(BCD32), string(BCD64), string(ASCII), string(Pulses)}
}

func (Order) choices() []string {
	return []string{string(ABCD), string(CDAB), string(BADC), string(DCBA)}
}
