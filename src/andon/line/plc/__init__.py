"""Handshake with a PLC over Modbus TCP: registers, state machine, server, and a simulated PLC."""
