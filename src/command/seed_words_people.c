#include "command/seed_words.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* Lists are broken between words, not in them. */
/* clang-format off */
static const struct seed_country north[] = {
    {"US", "en-US", "en", "USD", "19.99|34.99|49.99|79.99|129.00", 80, "America/New_York", "+1",
     "mail.example.com", "stripe",
     "Olivia|Liam|Emma|Noah|Amelia|Ethan|Maya|Lucas|Grace|Jayden|Aaliyah|Owen|Chloe|Mateo|Harper|Elijah|"
     "Naomi|Wyatt",
     "Johnson|Carter|Nguyen|Robinson|O'Brien|Ramirez|Walker|Kim|Bennett|Washington|Schultz|Patel|Hughes|"
     "Delgado|Fischer|Coleman|Murphy|Whitaker",
     "Boston|Brooklyn|Philadelphia|Atlanta|Chicago@America/Chicago|Austin@America/Chicago|"
     "Denver@America/Denver|Seattle@America/Los_Angeles|Oakland@America/Los_Angeles|"
     "Honolulu@Pacific/Honolulu"},
    {"MX", "es-MX", "es", "MXN", "299.00|449.00|699.00|1090.00|1790.00", 160, "America/Mexico_City", "+52",
     "correo.example.com", "stripe",
     "Ximena|Santiago|Guadalupe|José Luis|Valentina|Diego|Itzel|Emiliano|Renata|Joaquín|Fernanda|Ángel|"
     "Citlali|Raúl|Mónica|Óscar",
     "Hernández|García|Martínez|López|Rodríguez|Pérez|Sánchez|Ramírez|Núñez|Ibáñez|Vázquez|Mendoza|"
     "Castañeda|Zúñiga|Peña|Tlatelpa",
     "Ciudad de México|Guadalajara|Monterrey|Puebla|Mérida@America/Merida|Querétaro|Oaxaca|"
     "Tijuana@America/Tijuana"},
    {"CA", "fr-CA", "fr", "CAD", "24.99|44.99|64.99|99.99|159.00", 150, "America/Toronto", "+1",
     "courriel.example.org", "stripe",
     "Élodie|Félix|Chloé|Étienne|Océane|Mathéo|Noémie|Jérôme|Geneviève|Loïc|Maëlle|Benoît|Anaïs|Cédric|Zoé|"
     "Thérèse",
     "Tremblay|Gagnon|Côté|Bélanger|Lévesque|Bergeron|Pelletier|Gauthier|Poirier|Fortin|Bédard|Thériault|"
     "Lapointe|Létourneau|Désilets|Ménard",
     "Montréal|Québec|Gatineau|Sherbrooke|Trois-Rivières|Laval|Moncton@America/Moncton"},
    {"CA", "en-CA", "en", "CAD", "24.99|44.99|64.99|99.99|159.00", 130, "America/Toronto", "+1",
     "post.example.org", "stripe",
     "Charlotte|Benjamin|Priya|Connor|Siobhán|Arjun|Madison|Tariq|Aputik|Gordon|Mei|Dylan|Ingrid|Nasrin|"
     "Heather|Ewan",
     "MacDonald|Singh|Campbell|Chen|Nakashuk|Thompson|Ahmed|Friesen|Kowalchuk|Fraser|Lavallee|Bouchard|"
     "Dhaliwal|Reid|Papatsie|Sinclair",
     "Toronto|Ottawa|Halifax@America/Halifax|Winnipeg@America/Winnipeg|Calgary@America/Edmonton|"
     "Vancouver@America/Vancouver|Iqaluit@America/Iqaluit|St. John's@America/St_Johns"},
};

static const struct seed_country south[] = {
    {"BR", "pt-BR", "pt", "BRL", "79.90|129.90|199.90|299.90|499.00", 120, "America/Sao_Paulo", "+55",
     "correio.example.com", "mercadopago",
     "Ana Clara|João Pedro|Beatriz|Antônio|Letícia|Caio|Conceição|Vinícius|Júlia|Sebastião|Iracema|Thiago|"
     "Luíza|Raí|Débora|Estêvão",
     "Silva|Araújo|Gonçalves|Conceição|Magalhães|Guimarães|Assunção|Teixeira|Falcão|Simões|Brandão|Nóbrega|"
     "Tavares|Bulcão|Sant'Anna|Yamamoto",
     "São Paulo|Belo Horizonte|Florianópolis|Brasília|Salvador@America/Bahia|Belém@America/Belem|"
     "Manaus@America/Manaus|Recife@America/Recife|Goiânia"},
    {"AR", "es-AR", "es", "ARS", "14900.00|24900.00|36900.00|54900.00|89900.00", 210,
     "America/Argentina/Buenos_Aires", "+54", "correo.example.net", "mercadopago",
     "Martina|Facundo|Agustina|Nicolás|Lucía|Tomás|Camila|Joaquín|Micaela|Ezequiel|Abril|Gastón|Rocío|"
     "Matías|Inés|Benjamín",
     "Fernández|Bianchi|Gómez|Ferrari|Acuña|Rossi|Domínguez|Benítez|Ledesma|Giménez|Quiroga|Bustos|"
     "Echeverría|Muñoz|Wagner|Piñeyro",
     "Buenos Aires|Córdoba@America/Argentina/Cordoba|Rosario@America/Argentina/Cordoba|"
     "Mendoza@America/Argentina/Mendoza|La Plata|Ushuaia@America/Argentina/Ushuaia"},
    {"CO", "es-CO", "es", "COP", "59000.00|89000.00|139000.00|199000.00|329000.00", 190, "America/Bogota",
     "+57", "buzon.example.com", "adyen",
     "Mariana|Andrés Felipe|Luz Marina|Sebastián|Daniela|Julián|Paola|Óscar Iván|Yuliana|Hernán|Catalina|"
     "Édgar|Ángela|Camilo|Natalia|Fabián",
     "Restrepo|Rodríguez|Ocampo|Quiñones|Londoño|Arango|Ordóñez|Mosquera|Cárdenas|Zapata|Vélez|Castaño|"
     "Patiño|Murillo|Uribe|Tróchez", "Bogotá|Medellín|Cali|Barranquilla|Cartagena|Popayán|Ibagué"},
    {"CL", "es-CL", "es", "CLP", "14990.00|24990.00|39990.00|59990.00|99990.00", 190, "America/Santiago",
     "+56", "casilla.example.org", "adyen",
     "Antonia|Vicente|Florencia|Cristóbal|Isidora|Maximiliano|Javiera|Ignacio|Millaray|Nahuel|Constanza|"
     "Álvaro|Trinidad|Gaspar",
     "González|Muñoz|Huenchumilla|Sepúlveda|Contreras|Araya|Fuenzalida|Cayupán|Sandoval|Espinoza|Yáñez|"
     "Pizarro|Ñancupil|Lagos",
     "Santiago|Valparaíso|Concepción|Temuco|Antofagasta|Punta Arenas@America/Punta_Arenas"},
    {"PE", "es-PE", "es", "PEN", "59.90|99.90|149.90|219.90|369.00", 180, "America/Lima", "+51",
     "chasqui.example.org", "mercadopago",
     "Rosa María|Wilmer|Milagros|Jhon|Killari|César|Flor de María|Inti|Yesenia|Adrián|Sumaq|Víctor Hugo|"
     "Nelly|Alonso",
     "Quispe|Mamani|Huamán|Flores|Condori|Ñahui|Vilca|Salazar|Chávez|Yupanqui|Rojas|Ccopa|Tello|Paredes",
     "Lima|Cusco|Arequipa|Trujillo|Iquitos|Ayacucho"},
};

static const struct seed_country europe[] = {
    {"DE", "de-DE", "de", "EUR", "19.90|34.90|49.90|79.90|129.00", 190, "Europe/Berlin", "+49",
     "post.example.net", "adyen",
     "Käthe|Jürgen|Lena|Björn|Anneliese|Günther|Merle|Sören|Emine|Jörg|Frieda|Matthäus|Zeynep|Hannes|Dörte|"
     "Levin",
     "Müller|Schäfer|Krüger|Weiß|Yıldız|Böhm|Großmann|Kästner|Lüdtke|Vogel|Jäger|Hübner|Brandt|Öztürk|"
     "Thomsen|Strauß", "Berlin|Hamburg|München|Köln|Leipzig|Göttingen|Tübingen|Saarbrücken"},
    {"GR", "el-GR", "el", "EUR", "14.90|24.90|39.90|69.90|109.00", 240, "Europe/Athens", "+30",
     "grammi.example.com", "adyen",
     "Γιώργος=giorgos|Ελένη=eleni|Δημήτρης=dimitris|Κατερίνα=katerina|Νίκος=nikos|Σοφία=sofia|"
     "Παναγιώτης=panagiotis|Δέσποινα=despina|Στέλιος=stelios|Ιωάννα=ioanna|Θανάσης=thanasis|"
     "Αγγελική=angeliki|Μιχάλης=michalis|Χριστίνα=christina|Λευτέρης=lefteris|Ζωή=zoi",
     "Παπαδημητρίου=papadimitriou|Γεωργίου=georgiou|Ιωάννου=ioannou|Αντωνίου=antoniou|Οικονόμου=oikonomou|"
     "Βασιλείου=vasileiou|Κωνσταντίνου=konstantinou|Αθανασίου=athanasiou|Νικολάου=nikolaou|"
     "Χατζηγεωργίου=chatzigeorgiou|Παπανικολάου=papanikolaou|Δημητρίου=dimitriou|Ευαγγέλου=evangelou|"
     "Στεφάνου=stefanou", "Αθήνα|Θεσσαλονίκη|Πάτρα|Ηράκλειο|Ιωάννινα|Βόλος|Χανιά"},
    {"UA", "uk-UA", "uk", "UAH", "399.00|699.00|990.00|1590.00|2490.00", 200, "Europe/Kyiv", "+380",
     "poshta.example.org", "paypal",
     "Олександр=oleksandr|Оксана=oksana|Андрій=andrii|Наталія=nataliia|Тарас=taras|Соломія=solomiia|"
     "Богдан=bohdan|Ірина=iryna|Юрій=yurii|Катерина=kateryna|Євген=yevhen|Леся=lesia|Максим=maksym|"
     "Зоряна=zoriana|Ілля=illia|Христина=khrystyna",
     "Шевченко=shevchenko|Коваленко=kovalenko|Бондаренко=bondarenko|Ткачук=tkachuk|Мельник=melnyk|"
     "Кравчук=kravchuk|Гончар=honchar|Лисенко=lysenko|Поліщук=polishchuk|Їжакевич=yizhakevych|"
     "Гнатюк=hnatiuk|Середа=sereda|Щербак=shcherbak|Ґудзь=gudz",
     "Київ|Львів|Харків|Одеса|Чернівці|Івано-Франківськ|Полтава"},
    {"FR", "fr-FR", "fr", "EUR", "19.00|35.00|49.00|79.00|129.00", 200, "Europe/Paris", "+33",
     "lettre.example.com", "stripe",
     "Léa|François|Inès|Rémi|Aïcha|Gaël|Hélène|Théo|Margaux|Yacine|Agnès|Clément|Naïma|Frédéric|Céleste|Noël",
     "Lefèvre|Moreau|Benali|Fontaine|Dubois|Garçon|Chevalier|Le Goff|Traoré|Béranger|Lemaître|Perrin|"
     "Sauvêtre|Haddad|Maréchal|Étchebarne",
     "Paris|Lyon|Marseille|Nîmes|Besançon|Orléans|Saint-Étienne|Saint-Denis@Indian/Reunion"},
    {"PL", "pl-PL", "pl", "PLN", "79.00|129.00|189.00|299.00|449.00", 230, "Europe/Warsaw", "+48",
     "poczta.example.com", "adyen",
     "Zofia|Łukasz|Małgorzata|Paweł|Agnieszka|Michał|Świętosława|Grzegorz|Elżbieta|Wojciech|Zuzanna|Rafał|"
     "Bożena|Stanisław|Żaneta|Jędrzej",
     "Nowak|Wójcik|Król|Zając|Dąbek|Mazur|Gołąb|Sikora|Śliwa|Wróbel|Żak|Pająk|Łuczak|Kołodziej|Stępień|Ćwik",
     "Warszawa|Kraków|Łódź|Wrocław|Poznań|Gdańsk|Białystok|Rzeszów"},
    {"ES", "es-ES", "es", "EUR", "17.90|29.90|44.90|74.90|119.00", 210, "Europe/Madrid", "+34",
     "carta.example.org", "paypal",
     "Nerea|Íñigo|Begoña|Álvaro|Montserrat|Iker|Rocío|Andreu|Aitana|Jesús|Lucía|Xoán|Núria|Sergio|Ainhoa|"
     "Iván",
     "Etxeberria|García|Ferrer|Ibáñez|Núñez|Castro|Muñoz|Puig|Ortega|Domènech|Vázquez|Soler|Roldán|Giménez|"
     "Peñalver|Fariña", "Madrid|Barcelona|Bilbao|Sevilla|A Coruña|Cádiz|Logroño|Las Palmas@Atlantic/Canary"},
};

static const struct seed_country africa[] = {
    {"EG", "ar-EG", "ar", "EGP", "349.00|599.00|899.00|1390.00|2290.00", 140, "Africa/Cairo", "+20",
     "barid.example.com", "paypal",
     "محمد=mohamed|فاطمة=fatma|أحمد=ahmed|نور=nour|مصطفى=mostafa|مريم=mariam|يوسف=youssef|هبة=heba|"
     "كريم=karim|ياسمين=yasmin|عمر=omar|دعاء=doaa|طارق=tarek|سلمى=salma|خالد=khaled|آية=aya",
     "حسن=hassan|السيد=elsayed|عبد الله=abdallah|إبراهيم=ibrahim|منصور=mansour|الشافعي=elshafei|"
     "رمضان=ramadan|فؤاد=fouad|جمال=gamal|النجار=elnaggar|سليمان=soliman|زكي=zaki|بدوي=badawi|شعبان=shaaban",
     "القاهرة|الإسكندرية|الجيزة|أسيوط|المنصورة|أسوان"},
    {"ET", "am-ET", "am", "ETB", "990.00|1490.00|2290.00|3490.00|5900.00", 150, "Africa/Addis_Ababa",
     "+251", "tibeb.example.org", "flutterwave",
     "አበበ=abebe|ሰላም=selam|ዳዊት=dawit|ትዕግስት=tigist|ተስፋዬ=tesfaye|ሄለን=helen|ዮናስ=yonas|ብርቱካን=birtukan|"
     "ሙሉጌታ=mulugeta|አልማዝ=almaz|ኃይሌ=haile|ማርታ=marta|ግርማ=girma|ፀሐይ=tsehay",
     "ከበደ=kebede|ተፈራ=tefera|በቀለ=bekele|ወልደ=wolde|ታደሰ=tadesse|ገብረ=gebre|አለሙ=alemu|ደምሴ=demisse|መኮንን=mekonnen|"
     "ዘውዴ=zewde|ንጉሴ=nigussie|ሽፈራው=shiferaw", "አዲስ አበባ|ባሕር ዳር|ሐዋሳ|መቐለ|ድሬዳዋ|ጎንደር"},
    {"NG", "en-NG", "en", "NGN", "14500.00|24500.00|39500.00|59500.00|98500.00", 75, "Africa/Lagos", "+234",
     "post.example.com", "paystack",
     "Adéọlá|Chukwuemeka|Fọláṣadé|Ibrahim|Ngọzi|Olúwaṣeun|Amina|Tèmítọ́pẹ́|Ụchenna|Yetunde|Musa|Chidinma|"
     "Bọ́láńlé|Emeka|Zainab|Ọmọtọ́lá",
     "Adébáyọ̀|Okonkwo|Bello|Ọlátúnjí|Eze|Abubakar|Nwachukwu|Ògúnlẹ́yẹ|Danjuma|Okafor|Akíntọ́lá|Yusuf|Ụzọma|"
     "Fálọlá|Etim|Ọbáfẹ́mi", "Lagos|Ìbàdàn|Abuja|Enugu|Kano|Port Harcourt|Abẹ́òkúta"},
    {"KE", "sw-KE", "sw", "KES", "1900.00|2900.00|4500.00|6900.00|11900.00", 160, "Africa/Nairobi", "+254",
     "barua.example.org", "flutterwave",
     "Wanjiku|Otieno|Achieng|Kamau|Zawadi|Baraka|Nyambura|Juma|Amani|Kiprotich|Rehema|Mwangi|Chebet|Salim|"
     "Neema|Odhiambo",
     "Kariuki|Omondi|Wafula|Njoroge|Mutua|Cheruiyot|Hassan|Muthoni|Okello|Kilonzo|Barasa|Ndung'u|Maina|"
     "Koech|Ng'ang'a|Mwakio", "Nairobi|Mombasa|Kisumu|Eldoret|Nakuru|Malindi"},
    {"MA", "ar-MA", "ar", "MAD", "149.00|249.00|379.00|590.00|950.00", 200, "Africa/Casablanca", "+212",
     "risala.example.net", "paypal",
     "إدريس=driss|خديجة=khadija|ياسين=yassine|زينب=zineb|أيوب=ayoub|حسناء=hasnaa|رشيد=rachid|لطيفة=latifa|"
     "أمين=amine|سناء=sanae|المهدي=mehdi|إيمان=imane",
     "العلوي=alaoui|بنجلون=benjelloun|الفاسي=elfassi|أمزيان=ameziane|الإدريسي=idrissi|برادة=berrada|"
     "الوزاني=ouazzani|التازي=tazi|بناني=bennani|الزهراوي=zahraoui|حجي=hajji|السوسي=soussi",
     "الدار البيضاء|الرباط|فاس|مراكش|طنجة|أكادير"},
    {"SN", "fr-SN", "fr", "XOF", "9900.00|15900.00|24900.00|37900.00|62900.00", 180, "Africa/Dakar", "+221",
     "teranga.example.com", "flutterwave",
     "Aminata|Mamadou|Ndèye|Cheikh|Fatou|Moussa|Mariètou|Abdoulaye|Awa|Ibrahima|Khady|Pape|Sokhna|Modou|"
     "Rokhaya|Lamine",
     "Diop|Ndiaye|Fall|Sène|Guèye|Faye|Diouf|Sarr|Cissé|Mbaye|Thiam|Kébé|Sy|Bâ|Touré|Diallo",
     "Dakar|Thiès|Saint-Louis|Ziguinchor|Kaolack|Touba"},
    {"ZA", "en-ZA", "en", "ZAR", "249.00|399.00|599.00|899.00|1499.00", 150, "Africa/Johannesburg", "+27",
     "letter.example.net", "stripe",
     "Thandiwe|Sipho|Annelize|Kagiso|Nomvula|Pieter|Lerato|Bongani|Zanele|Renée|Tshepo|Naledi|Mandla|Chané|"
     "Ayanda|Jéan",
     "Dlamini|Nkosi|van der Merwe|Mokoena|Naidoo|Botha|Khumalo|Mahlangu|Pillay|du Plessis|Zulu|Sithole|"
     "Ndlovu|Jacobs|Tshabalala|Labuschagne",
     "Johannesburg|Cape Town|Durban|Pretoria|Gqeberha|Bloemfontein|Polokwane"},
};

static const struct seed_country asia[] = {
    {"JP", "ja-JP", "ja", "JPY", "2480.00|3980.00|5980.00|8980.00|14800.00", 100, "Asia/Tokyo", "+81",
     "tegami.example.com", "stripe",
     "陽葵=himari|蓮=ren|さくら=sakura|大翔=hiroto|結衣=yui|悠真=yuma|美咲=misaki|健太=kenta|あかり=akari|湊=minato|葵=aoi|"
     "翔太=shota|ひなた=hinata|直樹=naoki|花子=hanako|カレン=karen",
     "佐藤=sato|鈴木=suzuki|高橋=takahashi|田中=tanaka|渡辺=watanabe|伊藤=ito|山本=yamamoto|中村=nakamura|小林=kobayashi|"
     "加藤=kato|吉田=yoshida|佐々木=sasaki|松本=matsumoto|井上=inoue|木村=kimura|比嘉=higa", "東京|大阪|京都|札幌|福岡|那覇|仙台|名古屋"},
    {"CN", "zh-CN", "zh", "CNY", "99.00|168.00|268.00|399.00|699.00", 60, "Asia/Shanghai", "+86",
     "youjian.example.com", "alipay",
     "伟=wei|芳=fang|秀英=xiuying|磊=lei|静=jing|浩然=haoran|雨桐=yutong|子轩=zixuan|丽=li|建国=jianguo|欣怡=xinyi|宇航=yuhang|"
     "梦琪=mengqi|志强=zhiqiang|思远=siyuan|晓燕=xiaoyan",
     "王=wang|李=li|张=zhang|刘=liu|陈=chen|杨=yang|赵=zhao|黄=huang|周=zhou|吴=wu|徐=xu|孙=sun|欧阳=ouyang|郭=guo|林=lin|"
     "司马=sima", "北京|上海|广州|成都|西安|杭州|武汉|乌鲁木齐@Asia/Urumqi"},
    {"IN", "hi-IN", "hi", "INR", "799.00|1299.00|1999.00|2999.00|4999.00", 180, "Asia/Kolkata", "+91",
     "patra.example.org", "razorpay",
     "आरव=aarav|प्रिया=priya|विवेक=vivek|अनन्या=ananya|रोहित=rohit|दीपिका=deepika|संजय=sanjay|काव्या=kavya|"
     "अर्जुन=arjun|सुनीता=sunita|मोहम्मद=mohammad|लक्ष्मी=lakshmi|ईशान=ishaan|पूजा=pooja|कबीर=kabir|"
     "नेहा=neha",
     "शर्मा=sharma|वर्मा=verma|गुप्ता=gupta|सिंह=singh|पटेल=patel|मिश्रा=mishra|ख़ान=khan|अय्यर=iyer|"
     "रेड्डी=reddy|जोशी=joshi|चौधरी=chaudhary|बनर्जी=banerjee|त्रिपाठी=tripathi|नायर=nair|देशमुख=deshmukh|"
     "यादव=yadav", "दिल्ली|मुंबई|लखनऊ|जयपुर|पुणे|वाराणसी|भोपाल|पटना"},
    {"KR", "ko-KR", "ko", "KRW", "29000.00|49000.00|69000.00|99000.00|159000.00", 100, "Asia/Seoul", "+82",
     "pyeonji.example.com", "adyen",
     "서연=seoyeon|민준=minjun|지우=jiwoo|도윤=doyun|하은=haeun|현우=hyunwoo|수빈=subin|준서=junseo|은지=eunji|태민=taemin|"
     "예린=yerin|성호=seongho|보람=boram|재현=jaehyun|나래=narae|동혁=donghyuk",
     "김=kim|이=lee|박=park|최=choi|정=jeong|강=kang|조=cho|윤=yoon|장=jang|임=lim|한=han|오=oh|서=seo|신=shin|권=kwon|"
     "황보=hwangbo", "서울|부산|대구|인천|광주|제주|전주"},
    {"TH", "th-TH", "th", "THB", "490.00|790.00|1190.00|1790.00|2990.00", 70, "Asia/Bangkok", "+66",
     "jotmai.example.net", "adyen",
     "สมชาย=somchai|มาลี=malee|ณัฐวุฒิ=nattawut|พิมพ์ชนก=pimchanok|ธนพล=thanaphon|กัญญา=kanya|อาทิตย์=athit|"
     "ชลธิชา=chonthicha|วีระ=weera|สุดารัตน์=sudarat|ปกรณ์=pakorn|อรทัย=orathai|ภูมิ=phum|รัตนา=rattana",
     "ศรีสุวรรณ=srisuwan|วงศ์สวัสดิ์=wongsawat|บุญมี=bunmi|แสงทอง=saengthong|ทองดี=thongdi|"
     "จันทร์เพ็ญ=chanphen|สุขเกษม=sukkasem|รุ่งเรือง=rungrueang|ใจดี=jaidee|พรหมมา=phromma|"
     "กิตติชัย=kittichai|ชัยวัฒน์=chaiwat", "กรุงเทพมหานคร|เชียงใหม่|ขอนแก่น|ภูเก็ต|หาดใหญ่|นครราชสีมา"},
    {"VN", "vi-VN", "vi", "VND", "299000.00|499000.00|699000.00|999000.00|1690000.00", 80,
     "Asia/Ho_Chi_Minh", "+84", "thu.example.org", "paypal",
     "Thị Hương|Văn Đức|Thùy Linh|Minh Quân|Ngọc Ánh|Hữu Phước|Thu Thủy|Quốc Bảo|Mỹ Duyên|Đình Trọng|"
     "Bích Ngọc|Tấn Lộc|Khánh Vy|Xuân Trường",
     "Nguyễn|Trần|Lê|Phạm|Hoàng|Huỳnh|Vũ|Võ|Đặng|Bùi|Đỗ|Hồ|Ngô|Dương",
     "Hà Nội|Thành phố Hồ Chí Minh|Đà Nẵng|Huế|Cần Thơ|Hải Phòng|Đà Lạt"},
};

static const struct seed_country oceania[] = {
    {"NZ", "mi-NZ", "mi", "NZD", "29.00|45.00|69.00|109.00|179.00", 150, "Pacific/Auckland", "+64",
     "panui.example.org", "stripe",
     "Anahera|Tāne|Māia|Wiremu|Hēni|Rāwiri|Ngāio|Tīpene|Kahurangi|Hōne|Mererangi|Pāora|Tūī|Hēmi|Waimārie|"
     "Kōwhai",
     "Ngata|Pōmare|Tāmihana|Parata|Kīngi|Te Aho|Rāpana|Waititi|Hēnare|Takurua|Whātarau|Tūhoro|Māhuika|"
     "Paewai|Kāretu|Wīneera",
     "Tāmaki Makaurau|Te Whanganui-a-Tara|Ōtautahi|Kirikiriroa|Ōtepoti|Whangārei|Taupō"},
    {"AU", "en-AU", "en", "AUD", "29.95|49.95|69.95|109.95|179.00", 100, "Australia/Sydney", "+61",
     "mail.example.net", "stripe",
     "Matilda|Lachlan|Imogen|Angus|Freya|Yindi|Callum|Georgia|Harvinder|Zara|Jarrah|Sienna|Bùi Anh|Tahlia|"
     "Flynn|Eleni",
     "Williams|Nguyễn|McKenzie|Papadopoulos|Yunupingu|O'Connor|Kelly|Rossi|Singh|Taylor|Zhang|Murray|"
     "Anderson|Gulpilil|Hogan|Vella",
     "Sydney|Melbourne@Australia/Melbourne|Brisbane@Australia/Brisbane|Perth@Australia/Perth|"
     "Adelaide@Australia/Adelaide|Hobart@Australia/Hobart|Darwin@Australia/Darwin"},
    {"NZ", "en-NZ", "en", "NZD", "29.00|45.00|69.00|109.00|179.00", 150, "Pacific/Auckland", "+64",
     "post-nz.example.com", "stripe",
     "Isla|Hamish|Aroha|Fergus|Pippa|Sione|Bridget|Nikau|Ashleigh|Rangi|Holly|Logan|Deepa|Finn|Georgina|"
     "Viliami",
     "Wilson|Mackay|Tūhoe|Patel|Harris|Fonoti|Robertson|Clarke|Faleafa|Stewart|Huang|Bannister|Walker|"
     "Kereama|Doyle|Tāwhai", "Auckland|Wellington|Christchurch|Hamilton|Dunedin|Napier|Invercargill"},
    {"WS", "sm-WS", "en", "WST", "45.00|75.00|115.00|175.00|290.00", 150, "Pacific/Apia", "+685",
     "tusi.example.org", "paypal",
     "Sina|Tavita|Lagi|Ioane|Mele|Fa'afetai|Teuila|Malietoa|Ana|Pita|Losa|Semisi|Moana|Tu'u",
     "Tuilagi|Leota|Fa'asavalu|Ioane|Sāpolu|Lealaitafea|Mata'afa|Pālamo|Lāuaki|Tuigamala|Vāgana|Sēfo",
     "Apia|Salelologa|Vaitele|Leulumoega"},
    {"FJ", "en-FJ", "en", "FJD", "39.00|65.00|99.00|149.00|249.00", 150, "Pacific/Fiji", "+679",
     "vola.example.net", "paypal",
     "Litia|Ratu|Ashwini|Josefa|Mereoni|Ravinesh|Salote|Epeli|Shalini|Waisake|Adi|Vijay|Ulamila|Tomasi",
     "Naivalu|Prasad|Cakobau|Waqa|Sharma|Tuisawau|Kumar|Vakatawa|Lal|Qarase|Chand|Rokotuivuna|Reddy|Delai",
     "Suva|Nadi|Lautoka|Labasa|Levuka"},
};

/* clang-format on */
const struct seed_slot seed_slots[SEED_SLOTS] = {
    {north, COUNT(north)},   {south, COUNT(south)}, {europe, COUNT(europe)},
    {africa, COUNT(africa)}, {asia, COUNT(asia)},   {oceania, COUNT(oceania)},
};
