"""A station as a vision system of OPC 40100-1 (machine vision, control): its state machine, results and recipes."""
