package config

// choice is a text with a closed set of values.
type choice interface{ choices() []string }

func (BusKind) choices() []string {
	return []string{string(ModbusTCP), string(ModbusRTU), string(GPIO), string(GPIOSim)}
}

func (Parity) choices() []string {
	return []string{string(ParityNone), string(ParityEven), string(ParityOdd)}
}

func (DeviceKind) choices() []string {
	return []string{string(Bin), string(Meter), string(Camera), string(Contact)}
}

func (Function) choices() []string {
	return []string{string(Coil), string(DiscreteInput), string(HoldingRegister), string(InputRegister), string(Line)}
}

func (Type) choices() []string {
	return []string{string(Bool), string(U16), string(S16), string(U32), string(S32), string(U64), string(S64), string(F32), string(F64)}
}

func (Order) choices() []string {
	return []string{string(ABCD), string(CDAB), string(BADC), string(DCBA)}
}
