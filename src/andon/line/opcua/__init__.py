"""OPC UA: values, events and methods of all stations for clients such as SCADA and MES."""
