/* A Modbus slave on libmodbus, for tests: slave tcp PORT | rtu DEVICE. Its unit id is 7, and each of its tables holds at
   address n what a reader can work out: coils n % 3 == 0, discrete inputs n % 2, holding registers 1000 + n, input
   registers 0xFFFF - n. It ends when its master hangs up for good or it is killed. */
#include <modbus.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int tcp = argc == 3 && strcmp(argv[1], "tcp") == 0;
	if (argc != 3)
		return 2;
	modbus_t *ctx = tcp ? modbus_new_tcp("127.0.0.1", atoi(argv[2])) : modbus_new_rtu(argv[2], 9600, 'N', 8, 1);
	modbus_mapping_t *map = modbus_mapping_new(200, 200, 200, 200);
	if (!ctx || !map)
		return 1;
	modbus_set_slave(ctx, 7);
	for (int n = 0; n < 200; n++) {
		map->tab_bits[n] = n % 3 == 0;
		map->tab_input_bits[n] = n % 2;
		map->tab_registers[n] = 1000 + n;
		map->tab_input_registers[n] = 0xFFFF - n;
	}
	int listener = tcp ? modbus_tcp_listen(ctx, 1) : -1;
	for (;;) {
		uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
		if (tcp ? modbus_tcp_accept(ctx, &listener) < 0 : modbus_connect(ctx) < 0)
			return 1;
		for (;;) {
			int n = modbus_receive(ctx, query);
			if (n > 0)
				modbus_reply(ctx, query, n, map);
			else if (n < 0 && tcp)
				break;
		}
	}
}
